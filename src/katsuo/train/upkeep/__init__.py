"""What keeps a training going: its folder, its checkpoints, its best weights, and what is said when it breaks."""
