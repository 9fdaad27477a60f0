"""Prompt templates of others: where they lie, and how they are rendered without harm."""
