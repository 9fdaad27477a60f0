"""Where the pipeline runs: order, parallelism, resume and progress; what a shard holds is not their business."""
