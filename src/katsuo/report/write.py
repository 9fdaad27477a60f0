"""Write a report: one page, the same as Markdown, and the numbers as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from katsuo.errors import MissingPackageError, StoreError
from katsuo.places import place, place_here
from katsuo.report.markdown import as_markdown
from katsuo.report.read import read_story
from katsuo.report.sections import sections_of


def write_report(path: Path, output: Path, *, examples: int = 3) -> list[Path]:
    """
    Write report.html, report.md and report.json about `path` into `output`; give their paths.

    Raise `StoreError` for a folder that is neither a run nor an experiment, `UsageError` where `output` is a URL, and
    `MissingPackageError` without matplotlib.
    """
    output = place_here(output, "a report")
    story = read_story(place(path), examples=examples)
    sections = sections_of(story)
    try:
        from katsuo.report.page import as_page
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("katsuo"):
            raise
        raise MissingPackageError(
            f'a report needs the package "{error.name}", which is not installed', hint="pip install 'katsuo[report]'"
        ) from error
    texts = {
        "report.html": as_page(story, sections),
        "report.md": as_markdown(story, sections),
        "report.json": json.dumps(story.plain(), indent=1, ensure_ascii=False) + "\n",
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f'cannot write the report to "{output}": {error}', hint="give another folder with -o"
        ) from error
    return [output / name for name in texts]
