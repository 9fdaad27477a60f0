"""Labelled data sets and prompt templates become training pairs for the task generator (paper, CTGA)."""
