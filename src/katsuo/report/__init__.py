"""A run or an experiment as one page without network, as Markdown and as JSON; it only reads."""
