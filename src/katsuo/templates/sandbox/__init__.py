"""Render templates from strangers safely: a closed Jinja, limits on time and output, processes that may die."""
