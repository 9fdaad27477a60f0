"""What a task is, how it is asked, and when an answer to it is well formed."""

from __future__ import annotations

from katsuo.tasks.catalog import CATALOG, find_task, known_tasks
from katsuo.tasks.custom import load_task
from katsuo.tasks.task_type import TaskType, Worked

__all__ = ["CATALOG", "TaskType", "Worked", "find_task", "known_tasks", "load_task"]
