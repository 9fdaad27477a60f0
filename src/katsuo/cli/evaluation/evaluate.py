"""`katsuo evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from katsuo.cli.options import AsJson
from katsuo.errors import UsageError
from katsuo.settings import read_pairs

if TYPE_CHECKING:
    from katsuo.evaluate.compare import Comparison
    from katsuo.evaluate.folder import Evaluation
    from katsuo.evaluate.judge import Progress


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("evaluate", help=summary)(evaluate)


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models or adapters; the first is compared.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; taken up again.")] = Path("scores"),
    suite: Annotated[list[str] | None, typer.Option("--suite", "-s", help="Known suite or YAML. Repeatable.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="File of test rows, or the folder of a suite's.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Task type of your own --data.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="What your column is, such as passage=abstract. Repeatable.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="The labels in your data: by comma, or a JSON list.")] = None,
    base: Annotated[str | None, typer.Option(help="The model of the adapters, if not where they say.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder to be searched for the test rows.")] = None,
    style: Annotated[str | None, typer.Option(help="auto, chat, input-output.")] = None,
    prompt_template: Annotated[str | None, typer.Option(help="A prompt with {instruction} in it.")] = None,
    normalise: Annotated[str | None, typer.Option(help="none, tokens or bytes: divide a choice's score.")] = None,
    eos: Annotated[str | None, typer.Option(help="Score the answer's end: auto, yes or no.")] = None,
    first_gold: Annotated[bool, typer.Option("--first-gold", help="Judge by the first gold answer alone.")] = False,
    templates: Annotated[int | None, typer.Option(help="Only the first so many templates.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many items of a set, drawn by hash.")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Longest prompt; passages are cut to it.")] = None,
    engine: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the server of the engine openai listens.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float32, …; auto takes the model's own.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, such as max_new_tokens=40. Repeatable.")
    ] = None,
    export_harness: Annotated[
        Path | None, typer.Option(help="Write tasks of lm-evaluation-harness for the first model there; score nothing.")
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    from katsuo import api
    from katsuo.evaluate.settings import make_settings
    from katsuo.evaluate.system import find_system

    flags: dict[str, Any] = {
        "style": style,
        "prompt_template": prompt_template,
        "normalise": normalise,
        "eos": eos,
        "engine": engine,
    }
    flags |= {"templates": templates, "limit": limit, "max_prompt_tokens": max_prompt_tokens}
    given = {
        **flags,
        "engine_options.dtype": dtype,
        "engine_options.base_url": base_url,
        "first_gold": first_gold or None,
    }
    told = {key: value for key, value in given.items() if value is not None}
    settings = make_settings(told | read_pairs(change or [], such_as="max_new_tokens=40"))
    named = {"data": data, "task": task, "columns": _columns(column), "labels": _words(labels)}
    if export_harness:
        sheets = api.read_sheets(suite or (), settings, **named)  # type: ignore[arg-type]
        groups = api.export_harness(models[0], export_harness, sheets, settings, base=base)
        typer.echo(json.dumps(groups) if as_json else f"{export_harness}: {', '.join(groups)}")
        return
    systems = [find_system(model, base=base) for model in models]
    places = _places(output, [system.name for system in systems])
    sheets = api.read_sheets(suite or (), settings, **named)  # type: ignore[arg-type]
    found = [
        api.judge(system, sheets, place, settings, run=run, on_progress=_Lines(quiet=quiet))
        for system, place in zip(systems, places, strict=True)
    ]
    _print(found, as_json=as_json)


def _print(found: list[Evaluation], *, as_json: bool) -> None:
    from katsuo.evaluate.compare import compare
    from katsuo.evaluate.folder import scores_beside
    from katsuo.evaluate.verdict import verdict

    comparisons = [compare(found[0], other) for other in found[1:]]
    said = verdict([one.claim() for one in comparisons], warnings=_warnings(found)) if comparisons else ""
    if as_json:
        told = {
            "evaluations": [{"path": str(one.path), **one.scores} for one in found],
            "comparisons": [_plain(one) for one in comparisons],
            "verdict": said,
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for one in found:
        typer.echo(f"{one.name}  ({one.path})")
        for name, scores in one.scores["sets"].items():
            beside = "".join(f", {mean:.1f} {key.replace('_', ' ')}" for key, mean in scores_beside(scores).items())
            shown = f"{scores['mean']:6.1f} ± {scores['spread']:.1f} {scores['metric']}{beside}"
            typer.echo(f"  {name:<24} {shown}, {scores['items']} items, {len(scores['templates'])} templates")
            if overlap := scores.get("overlap"):
                where = f"{overlap['passages']} by their passage, {overlap['questions']} by their question"
                typer.echo(f"  {'':<24} in the run: {where}")
    for warning in _warnings(found):
        typer.echo(f"warning: {warning}")
    if said:
        typer.echo(f"{found[0].name}: {said}")
    for pair in comparisons:
        for name in pair.sets if len(pair.sets) > 1 else ():
            typer.echo(f"  {name:<24} {verdict([pair.claim(name)])}")


def _plain(one: Comparison) -> dict[str, Any]:
    gains = {**one.sets, "mean": one.mean}
    return {
        "system": one.system,
        "baseline": one.baseline,
        "gains": {
            name: {
                "difference": gain.difference,
                "interval": gain.interval,
                "is_significant": gain.is_significant,
                "items": gain.items,
            }
            for name, gain in gains.items()
        },
    }


def _warnings(found: list[Evaluation]) -> list[str]:
    told = [
        f"{name}: {text}" for one in found for name, scores in one.scores["sets"].items() for text in scores["warnings"]
    ]
    return list(dict.fromkeys(told))


def _places(output: Path, names: list[str]) -> list[Path]:
    if len(names) == 1:
        return [output]
    if len(set(names)) < len(names):
        raise UsageError(f"two systems bear the same name: {', '.join(names)}", hint="rename one of the folders")
    return [output / name.replace("/", "-") for name in names]


def _columns(pairs: list[str] | None) -> dict[str, str]:
    told = {}
    for pair in pairs or []:
        name, equals, column = pair.partition("=")
        if not equals:
            raise UsageError(f'"{pair}" names no column', hint="write --column passage=abstract")
        told[name.strip()] = column.strip()
    return told


def _words(text: str | None) -> list[str] | None:
    """Part words at commas, or read a JSON list: a word may hold a comma there."""
    if not text or not text.lstrip().startswith("["):
        return [word.strip() for word in text.split(",")] if text else None
    try:
        words = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--labels is no JSON list: {error}", hint="""write '["one", "two"]', or one,two""") from None
    return [str(word) for word in words]


class _Lines:
    """A line on standard error for every portion of items."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, progress: Progress) -> None:
        """Show how far the evaluation has come."""
        if not self._quiet:
            sys.stderr.write(f"{progress.set}: {progress.done} of {progress.total} items, {progress.per_s:.1f}/s\n")
            sys.stderr.flush()
