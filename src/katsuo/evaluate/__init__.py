"""Judging models on labelled data: scores by data set and template, and how sure a difference is."""
