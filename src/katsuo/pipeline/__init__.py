"""Pure steps over batches: chunk, clean, ask, judge."""
