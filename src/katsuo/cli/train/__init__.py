"""The commands that train: one file each, and the flags they share."""
