"""`katsuo ctga build | check | stats | show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli.ctga.tables import ShardProgress, print_finding, print_ledger, print_pair, print_table
from katsuo.cli.options import AsJson

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a build.")]
Data = Annotated[str | None, typer.Option(help="Folder of data sets (<name>[__<config>]/train.parquet); else the hub.")]


def add_to(parent: typer.Typer, summary: str) -> None:
    parent.add_typer(app, name="ctga", help=summary)


@app.command("build", help="Write training pairs for a task generator. Run again, it goes on where it was stopped.")
def build_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    pack: Annotated[
        str | None, typer.Argument(metavar="[PACK]", help="Your own ctga.yaml; else the catalogue.")
    ] = None,
    *,
    data: Data = None,
    templates: Annotated[str | None, typer.Option(help="Folder of templates; else the pinned promptsource.")] = None,
    sources: Annotated[str, typer.Option(help="Only these, by comma: squad,super_glue/boolq.")] = "",
    exclude_license: Annotated[str, typer.Option(help="Leave sources out by terms: nc, unstated.")] = "",
    per_row: Annotated[str, typer.Option(help="Templates drawn per row: a number or all.")] = "1",
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows of a source.")] = 100_000,
    balance: Annotated[str, typer.Option(help="types or sources: cut each to the mean; none.")] = "none",
    cap: Annotated[list[str] | None, typer.Option(help="At most N pairs of every type, or TYPE=N. Repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the pairs do not depend on it.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")] = False,
    as_json: AsJson = False,
) -> None:
    from katsuo.ctga.build import build
    from katsuo.ctga.settings import make_settings

    told: dict[str, object] = {"pack": pack, "data": data, "templates": templates, "balance": balance, "limit": limit}
    told |= {"sources": _words(sources), "exclude_license": _words(exclude_license), "per_row": per_row}
    settings = make_settings({**told, "caps": cap or [], "seed": seed, "workers": workers})
    with ShardProgress(quiet=quiet) as progress:
        summary = build(settings, out, progress=progress)
    if as_json:
        typer.echo(json.dumps(summary.as_json(), ensure_ascii=False))
    elif not quiet:
        print_ledger(summary.by_type, summary.lost, summary.drawn)
        if summary.absent:
            typer.echo(f"not in {data}: {', '.join(summary.absent)}")
        typer.echo(f"{summary.pairs:,} pairs in {out}")
    raise typer.Exit(3 if summary.is_short else 0)


@app.command("check", help="Render samples of your own pack, and explain what is wrong and where.")
def check_command(
    pack: Annotated[Path, typer.Argument(help="ctga.yaml, or the folder that holds it.")],
    data: Data = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each source to try.")] = 8,
    show: Annotated[int, typer.Option(min=0, help="Samples to print.")] = 3,
    as_json: AsJson = False,
) -> None:
    from katsuo.ctga.check import check_pack

    report = check_pack(pack, data=data, rows=rows)
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        for sample in report.samples[:show]:
            print_pair(sample)
        for finding in report.findings:
            print_finding(finding)
        state = "usable" if report.is_usable else "not usable yet"
        typer.echo(f"{state}: {len(report.samples)} samples rendered, {len(report.lost)} rejected")
    raise typer.Exit(0 if report.is_usable else 1)


@app.command("stats", help="Count pairs by type, source and template, lengths in tokens, rejects; write the card.")
def stats_command(
    folder: Folder,
    model: Annotated[str | None, typer.Option(help="Model whose tokenizer counts; else the embedded one.")] = None,
    as_json: AsJson = False,
) -> None:
    from katsuo.ctga.card import write_card
    from katsuo.ctga.stats import choose_counter, measure_lengths, summarize

    summary = summarize(folder)
    count_tokens, counted_by = choose_counter(model)
    lengths = measure_lengths(folder, count_tokens)
    card = write_card(folder, summary, lengths, counted_by=counted_by)
    if as_json:
        measured = {"counted_by": counted_by, "lengths": [vars(length) for length in lengths], "card": str(card)}
        typer.echo(json.dumps({**summary.as_json(), **measured}, ensure_ascii=False))
        return
    print_ledger(summary.by_type, summary.lost, summary.drawn)
    print_table(("source", "pairs", "licence"), [
        (source["source"], summary.by_source.get(source["source"], 0), source["licence"]) for source in summary.sources
    ])  # fmt: skip
    print_table(("source", "template", "pairs"), [(*key, count) for key, count in summary.by_template.items()])
    print_table(("rejected", "source", "template", "drawings"), [(*k, n) for k, n in summary.lost_by_template.items()])
    print_table(("tokens", "pairs", "mean", "median", "95 %", "longest"), [length.as_row() for length in lengths])
    typer.echo(f"tokens counted with {counted_by}\nwritten to {card}")


@app.command("show", help="Print a few pairs of a task type or a source.")
def show_command(
    folder: Folder,
    task: Annotated[str | None, typer.Option("--task", "--type", "-t", help="Task type, full or short name.")] = None,
    source: Annotated[str | None, typer.Option(help="Source, such as super_glue/boolq.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pairs to print.")] = 3,
    as_json: AsJson = False,
) -> None:
    from katsuo.ctga.stats import pick_pairs

    pairs = pick_pairs(folder, task_type=task, source=source, count=count)
    if as_json:
        typer.echo(json.dumps([pair._asdict() for pair in pairs], ensure_ascii=False))
        return
    for pair in pairs:
        print_pair(pair)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
