"""Try a pack on a few rows and say what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from katsuo.ctga.catalog import Source
from katsuo.ctga.pack import open_pack, read_pack
from katsuo.ctga.remix import LostPair, Pair, Recipe, Remixer
from katsuo.ctga.rows import Rows, open_rows
from katsuo.ctga.templates import meta_template, prints_context
from katsuo.errors import KatsuoError
from katsuo.records import Reason
from katsuo.templates.library import Template
from katsuo.templates.lined import LinedYaml
from katsuo.templates.marks import SEPARATOR
from katsuo.templates.sandbox.draws import Draws
from katsuo.templates.sandbox.pool import Beat, Place, Pool
from katsuo.templates.sandbox.render import Renderer, absent, compile_context
from katsuo.templates.sandbox.watch import Watch

_TIME_LIMIT_S = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`is_error`) or looks wrong: where it stands, what it is, what to do."""

    where: str
    problem: str
    cure: str
    is_error: bool = True


@dataclass
class CheckReport:
    """What `check_pack` found, and the samples it rendered."""

    findings: list[Finding] = field(default_factory=list)
    samples: list[Pair] = field(default_factory=list)
    lost: list[LostPair] = field(default_factory=list)

    @property
    def is_usable(self) -> bool:
        """True when nothing is wrong."""
        return not any(finding.is_error for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Give plain values, for `--json`."""
        return {
            "usable": self.is_usable,
            "findings": [vars(finding) for finding in self.findings],
            "samples": [sample._asdict() for sample in self.samples],
            "rejected": [lost._asdict() for lost in self.lost],
        }


@dataclass(frozen=True)
class _Samples:
    """A job for a worker: every template of a source on its first rows."""

    recipe: Recipe
    rows: Rows
    count: int


def check_pack(path: Path, *, data: str | None = None, rows: int = 8) -> CheckReport:
    """
    Check a pack: its form, each template by itself, the columns it reads, and renderings of the first `rows` rows.

    Rendering happens in a worker process, so that no template can harm the caller. Raise `TemplateError` when the file
    itself cannot be understood.
    """
    report = CheckReport()
    file = open_pack(path)
    for source in read_pack(path):
        if source.terms == "not stated":
            report.findings.append(
                Finding(f"{file.path}:{source.line}", f'"{source.name}" does not state its terms',
                        "add `terms: open` or `terms: non-commercial`", is_error=False)
            )  # fmt: skip
        try:
            found = open_rows(source, data)
            if found is None:
                report.findings.append(
                    Finding(
                        f"{file.path}:{source.line}", f'"{data}" does not hold "{source.name}"', "add `data:` to it"
                    )
                )
                continue
            columns = found.columns()
        except KatsuoError as error:
            report.findings.append(Finding(f"{file.path}:{source.line}", error.message, error.hint))
            continue
        _check_source(file, source, columns, report)
        if usable := _usable(file, source, columns, report):
            _try_out(file, Recipe(source, usable, per_row=0), found, rows, report)
    return report


def _check_source(file: LinedYaml, source: Source, columns: Sequence[str], report: CheckReport) -> None:
    with Watch(_TIME_LIMIT_S) as watch:
        renderer = Renderer(Draws(0, source.name), watch)
        try:
            _, needed = compile_context(renderer, source.name, source.context)
        except KatsuoError as error:
            report.findings.append(Finding(f"{file.path}:{source.line}", error.message, error.hint))
            return
    for name in absent(needed, columns):
        report.findings.append(_no_column(f"{file.path}:{source.line}", f"the context of {source.name}", name, columns))


def _usable(file: LinedYaml, source: Source, columns: Sequence[str], report: CheckReport) -> tuple[Template, ...]:
    usable = []
    with Watch(_TIME_LIMIT_S) as watch:
        renderer = Renderer(Draws(0, source.name), watch)
        for template in source.templates:
            found = list(_check_template(file, source, template, columns, renderer))
            report.findings += found
            if not found:
                usable.append(template)
    return (
        ()
        if any(finding.is_error and "context of" in finding.problem for finding in report.findings)
        else tuple(usable)
    )


def _check_template(
    file: LinedYaml, source: Source, template: Template, columns: Sequence[str], renderer: Renderer
) -> Iterator[Finding]:
    where, called = f"{file.path}:{template.line}", f'template "{template.name}"'
    separators = template.jinja.count(SEPARATOR)
    if separators != 1:
        yield Finding(
            where, f"{called} has {separators} separators", f"write {SEPARATOR} once, between instruction and response"
        )
    if not prints_context(template, source):
        yield Finding(where, f"{called} never prints the context", f"put {source.context} where the text is to stand")
    try:
        compiled = renderer.compile(template.name, meta_template(template, source), template.answer_choices)
    except KatsuoError as error:
        yield Finding(where, error.message, error.hint)
        return
    for name in absent(compiled.needed, columns):
        yield _no_column(where, called, name, columns)


def _no_column(where: str, who: str, name: str, columns: Sequence[str]) -> Finding:
    near = difflib.get_close_matches(name, columns, n=1)
    cure = f'did you mean "{near[0]}"?' if near else f"columns: {', '.join(columns)}"
    return Finding(where, f'{who} reads "{name}", which is no column', cure)


def _try_out(file: LinedYaml, recipe: Recipe, rows: Rows, count: int, report: CheckReport) -> None:
    lines = {template.name: template.line for template in recipe.templates}
    job = _Samples(recipe, rows, count)
    ((_, result),) = Pool(_render_samples, workers=1).run([job])
    report.samples += result["pairs"]
    report.lost += result["lost"]
    tried = Counter(item.template for item in (*result["pairs"], *result["lost"]))
    for (template, reason), lost in sorted(Counter((item.template, item.reason) for item in result["lost"]).items()):
        detail = next(item.detail for item in result["lost"] if (item.template, item.reason) == (template, reason))
        report.findings.append(
            Finding(
                f"{file.path}:{lines[template]}",
                f'template "{template}" lost {lost} of {tried[template]} rows: {reason}'
                + (f" ({detail})" if detail else ""),
                _CURES.get(reason, "try the template on that row"),
                is_error=lost == tried[template],
            )
        )
    for template, detail in result["blank"].items():
        report.findings.append(
            Finding(f"{file.path}:{lines[template]}", f'template "{template}" prints nothing somewhere: {detail}',
                    "check the names after the dots", is_error=False)
        )  # fmt: skip


_CURES = {
    Reason.EMPTY_PART.value: "fine for rows that the template is not meant for; else check the condition around it",
    Reason.FORBIDDEN.value: "a template may read the columns of its row, and nothing else",
    Reason.TIME_LIMIT.value: "take the loop out of the template",
    Reason.OUTPUT_LIMIT.value: "print less",
    Reason.CONTROL_MARKER.value: "the row holds a marker of the wire format: leave such rows out of the data",
    Reason.EMPTY_PASSAGE.value: "leave rows without a text out of the data",
}


def _render_samples(job: _Samples, skip: frozenset[Place], beat: Beat) -> dict[str, Any]:
    columns = job.rows.columns()
    pairs: list[Pair] = []
    lost: list[LostPair] = []
    blank: dict[str, str] = {}
    with Watch(_TIME_LIMIT_S, hard_limit_s=10) as watch:
        remixer = Remixer(job.recipe, columns, watch)
        strict = Remixer(job.recipe, columns, watch, is_strict=True)
        for number, row in itertools.islice(job.rows.read(0, job.count, remixer.columns), job.count):
            found = list(remixer.remix(number, row, skip=skip, beat=beat))
            lost += [item for item in found if isinstance(item, LostPair)]
            pairs += [item for item in found if isinstance(item, Pair)]
            good = {item.template for item in found if isinstance(item, Pair)}
            failed = frozenset((number, place) for place, item in enumerate(found) if isinstance(item, LostPair))
            for item in strict.remix(number, row, skip=skip | failed, beat=beat):
                if isinstance(item, LostPair) and item.template in good:
                    blank.setdefault(item.template, f"row {number}, {item.detail}")
    return {"pairs": pairs, "lost": lost, "blank": blank}
