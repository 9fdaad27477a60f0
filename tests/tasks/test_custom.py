from __future__ import annotations

from pathlib import Path

import pytest

from katsuo.errors import UsageError
from katsuo.records import Reason
from katsuo.tasks import load_task
from katsuo.tasks.checks import first_failure
from katsuo.tasks.task_type import Draft

GOOD = """
name: clause type
description: Ask which kind of clause the passage is.
answer: labels
labels: [termination, payment]
examples:
  - passage: Either side may end this contract.
    instruction: "{{context}}\\nIs this clause about termination or payment?"
    response: termination
"""


def write(folder: Path, text: str) -> str:
    path = folder / "clause.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_task_type_of_the_users_own_needs_no_code(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD))
    assert (task.name, task.short) == ("clause type", "clause")
    asked = "{{context}} Termination or payment?"
    assert first_failure(Draft(task, "Fees are due.", asked, "payment")) is None
    assert first_failure(Draft(task, "Fees are due.", asked, "secrecy")) is Reason.NOT_IN_CHOICES


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("labels: [termination, payment]", ""), "needs two labels"),
        (("answer: labels", "answer: span"), "has labels but answer: span"),
        (("answer: labels", "answer: number"), "answer: input should be"),
        (("response: termination", "response: secrecy"), "example 1 .* fails its own check: answer not in choices"),
        (("{{context}}", ""), "fails its own check: passage not referred to"),
        (("description", "descripton"), "description: field required"),
        (("name: clause type", "name: ["), "not YAML"),
        (("name: clause type", 'name: "clause <|task|> type"'), "control marker .*<.task.>"),
        (("Either side", "<|context|> Either side"), "control marker .*<.context.>"),
    ],
)
def test_a_task_file_that_cannot_work_says_where(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_task(write(tmp_path, GOOD.replace(*change)))


def test_a_task_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the task type"):
        load_task(str(tmp_path / "absent.yaml"))
