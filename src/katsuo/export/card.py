"""The data set card: what is in it, what became of every prompt, from which files, by which recipe and model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from katsuo.export.order import Order

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*@)?(?P<host>[^/?#]*)(?P<path>[^?#]*)")
_CATEGORIES = {"question answering": "question-answering", "summarization": "summarization"}
_DOES_NOT_MEASURE = (
    "The checks look at form: both parts are there, an answer is one of its labels or options or stands in the passage "
    "word for word, the instruction is about the passage, near-duplicates are out. They do not measure whether an "
    "answer is true, whether a question is useful, or whether the texts hold anything personal or harmful. No person "
    "has read the examples unless somebody says so here."
)


def write_card(order: Order, format: str) -> None:
    """Write `README.md`, whose head tells the hub and `datasets` where the files of each split are."""
    parts = [
        _head(order),
        _opening(order, format),
        _splits(order),
        "## What became of every prompt\n\n" + table(("", "in", "kept", "left out"), _ledger(order)),
        _by_task(order),
        _sources(order),
        _model(order),
        _recipe(order),
        f"## What the checks do not measure\n\n{_DOES_NOT_MEASURE}",
    ]
    (order.folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table; numbers stand to the right."""
    lines = [[_cell(value) for value in row] for row in rows]
    numbers = [all(line[at][:1].isdigit() or not line[at] for line in lines) for at in range(len(head))]
    rule = [" ---: " if is_number and at else " --- " for at, is_number in enumerate(numbers)]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(line)} |" for line in lines)])


def without_places(value: Any) -> Any:
    """
    Give a setting in which a path of this machine is only its last name, and a URL only scheme and host.

    A card may be read anywhere. What could be a name on the hub, such as `owner/name`, is a path where one is there.
    """
    if isinstance(value, Mapping):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner) for inner in value]
    if isinstance(value, str):
        return " + ".join(_last_name(part) if _is_place(part) else part for part in value.split(" + "))
    return value


def _is_place(text: str) -> bool:
    if _URL.match(text):
        return True
    if text.startswith(("/", "~", ".")) or "\\" in text:
        return True
    try:
        return "/" in text and Path(text).exists()
    except OSError:
        return False  # longer than a path can be


def _last_name(text: str) -> str:
    if text.startswith("hf://"):
        return text
    if url := _URL.match(text):
        return url["scheme"] + url["host"] if url["host"] else _last_name(url["path"])
    parts = [part for part in re.split(r"[/\\]", text) if part]
    return parts[-1] if parts else text


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def _head(order: Order) -> str:
    total = order.examples_by_split.total()
    files = [{"split": split, "path": pattern} for split, pattern in _train_first(order.data_files)]
    head: dict[str, Any] = {"license": order.options.license}
    if order.options.license == "other":
        head["license_name"] = "terms-of-the-sources"
    if order.options.languages:
        head["language"] = list(order.options.languages)
    head["size_categories"] = [next((name for size, name in _SIZES if total < size), "10M<n<100M")]
    head["task_categories"] = _task_categories(order)
    head["tags"] = ["synthetic", "katsuo", "conditional-task-generation"]
    head["configs"] = [{"config_name": "default", "data_files": files}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _train_first(data_files: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(data_files.items(), key=lambda item: (item[0] != "train", item[0]))


def _task_categories(order: Order) -> list[str]:
    kept = order.run.summary().kept_by_task
    asked = [category for word, category in _CATEGORIES.items() if any(word in task for task in kept)]
    return ["text-generation", *asked]


def _opening(order: Order, format: str) -> str:
    summary = order.run.summary()
    total = order.examples_by_split.total()
    documents = summary.documents - sum(summary.documents_rejected.values())
    model = without_places(order.run.manifest.get("model", {}).get("model", "unknown"))
    opening = (
        f"# {order.name}\n\n{total:,} instruction-response pairs about the passages of {documents:,} documents, "
        f'written by the task generator "{model}" and checked one by one. Made with katsuo, exported as "{format}".\n\n'
        '```python\nfrom datasets import load_dataset\n\ndata = load_dataset("path/of/this/folder")\n```'
    )
    if not summary.is_complete or not order.run.is_read():
        opening += "\n\n**The run was not finished when this was written: more prompts were still to be answered.**"
    return opening


def _splits(order: Order) -> str:
    rows = [(split, order.examples_by_split[split], pattern) for split, pattern in _train_first(order.data_files)]
    told = "\n\nAll examples of one document are in the same split." if len(rows) > 1 else ""
    return f"## Files\n\n{table(('split', 'examples', 'files'), rows)}{told}"


def _ledger(order: Order) -> Iterator[tuple[object, ...]]:
    """Give the rows of the ledger: each level, then the reasons for which things were left out of it."""
    summary = order.run.summary()
    out = {
        "documents": summary.documents_rejected,
        "passages": summary.passages_rejected,
        "prompts": summary.rejected,
    }
    counts = {
        "documents": (summary.documents, summary.documents - sum(summary.documents_rejected.values())),
        "passages": (summary.passages + sum(summary.passages_rejected.values()), summary.passages),
        "prompts": (summary.prompts, summary.kept),
    }
    for level, reasons in out.items():
        yield (level, *counts[level], sum(reasons.values()))
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            yield (f"… {reason}", "", "", count)


def _by_task(order: Order) -> str:
    rows = sorted(order.run.summary().kept_by_task.items(), key=lambda item: (-item[1], item[0]))
    return f"## Kept, by task type\n\n{table(('task type', 'examples'), rows)}"


def _sources(order: Order) -> str:
    sources = order.sources
    text = f"## Sources\n\n{table(('file', 'examples'), sources.first.items())}"
    if sources.more_files:
        text += f"\n\n… and {sources.more_examples:,} examples from {sources.more_files:,} more files."
    return text


def _model(order: Order) -> str:
    manifest = order.run.manifest
    rows = {
        **manifest.get("model", {}),
        **{name: manifest.get(name) for name in ("adapter", "codec", "seed", "recipe_hash")},
    }
    rows |= {f"version of {name}": version for name, version in manifest.get("versions", {}).items()}
    told = ((name, str(without_places(value))) for name, value in rows.items() if value is not None)
    return f"## Model and versions\n\n{table(('', ''), told)}"


def _recipe(order: Order) -> str:
    recipe = order.run.recipe
    settings = without_places(recipe.model_dump(mode="json", exclude={"engine_options": {"base_url"}}))
    # These are paths whether or not they look like it, and are here.
    settings["documents"] = [_last_name(place) for place in recipe.documents]
    settings["held_out"] = _last_name(recipe.held_out) if recipe.held_out else None
    settings["tasks"] = [_last_name(task) if task.endswith((".yaml", ".yml")) else task for task in recipe.tasks]
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    opening = "Every setting of the run; of paths outside it only the last name, of URLs only the host."
    return f"## Recipe\n\n{opening}\n\n```yaml\n{text}```"
