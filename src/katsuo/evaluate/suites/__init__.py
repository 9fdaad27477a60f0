"""Labelled data sets and the templates that ask about them: known ones, one for each kind of task, and a user's own."""

from __future__ import annotations

from katsuo.evaluate.suites.items import Item, Question, Sheet, make_sheet
from katsuo.evaluate.suites.read import Suite, known_suites, load_suite, read_suite, task_suite

__all__ = [
    "Item",
    "Question",
    "Sheet",
    "Suite",
    "known_suites",
    "load_suite",
    "make_sheet",
    "read_suite",
    "task_suite",
]
