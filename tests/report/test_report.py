"""A report tells what the folders hold, and needs nothing but itself."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from report_numbers import results

from katsuo.errors import MissingPackageError, StoreError
from katsuo.report.effort import tell_cost
from katsuo.report.read import read_run, read_story
from katsuo.report.scores import tell_scores
from katsuo.report.sections import sections_of
from katsuo.report.write import write_report
from katsuo.store import Run

HOSTILE = "<script>alert(1)</script> $x$ | *bold* ``` &"
Written = Callable[[Path], dict[str, str]]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(path: Path) -> dict[str, str]:
        return {one.name: one.read_text(encoding="utf-8") for one in write_report(path, tmp_path / "report")}

    return write


class Page(HTMLParser):
    """Every tag and attribute of a page, and whether all that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("meta", "br", "hr", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_of_an_experiment_holds_the_verdict_and_every_section(
    experiment_folder: Path, written: Written
) -> None:
    texts = written(experiment_folder)
    for name in ("report.html", "report.md"):
        for words in (
            "+2.0 macro F1 over zero-shot", "Scores", "Learning curves", "Forgetting", "Cost", "Recipe",
            "some that were kept", "some that were rejected", "not significant", "model: small",
            "left out: there are no labelled rows", "+1.0", "n. s.",
        ):  # fmt: skip
            assert words in texts[name], (name, words)
    assert "+2.0 (+0.5 to +3.5)" in texts["report.md"]
    assert "+2.0<small>+0.5 to +3.5</small>" in texts["report.html"]
    told = json.loads(texts["report.json"])
    assert told["results"]["sets"]["bridges"]["gains"]["zero-shot"]["difference"] == 2.04


def test_several_data_sets_are_told_together_and_one_by_one() -> None:
    told = results()
    told["sets"] = {"bridges": told["sets"]["bridges"], "roads": told["sets"]["bridges"]}
    lead, by_set, templates, others = tell_scores(told)
    assert lead.is_lead
    assert lead.tables[0].rows[2][1:] == ["48.0", "+2.0 (+0.5 to +3.5)"]
    assert [one.caption.partition(":")[0] for one in by_set.figures] == ["bridges", "roads"]
    ends = [figure.values["ends"] for figure in by_set.figures]
    assert ends[0] == ends[1] == [-5.0, 4.0], "figures beside each other have one axis"
    assert len(templates.tables) == 2
    accuracy, seeds = others.tables[0], others.tables[2]
    assert (accuracy.columns, accuracy.rows[0]) == (["system", "accuracy"], ["name of katsuo", "61.0"])
    assert (seeds.columns, seeds.rows[0]) == (["system", "seed 0", "seed 7"], ["name of katsuo", "51.5", "48.5"])


def test_an_unfinished_experiment_says_what_is_to_do(experiment_folder: Path, written: Written) -> None:
    told = results() | {"to_do": ["bridges/seed-0/pretrain"]}
    (experiment_folder / "results.json").write_text(json.dumps(told))
    texts = written(experiment_folder)
    for name in ("report.html", "report.md"):
        assert "Not finished" in texts[name]
        assert "2 of 3 stages are done" in texts[name]
        assert "bridges/seed-0/pretrain" in texts[name]
    told |= {"sets": {}, "forgetting": {}, "runs": {}, "adapters": {}, "cost": [{"stage": "bridges/split"}]}
    (experiment_folder / "results.json").write_text(json.dumps(told))
    assert "Not finished" in written(experiment_folder)["report.html"]


def test_the_cost_is_told_by_kind_of_stage_and_stage_by_stage() -> None:
    told = results()
    told["cost"] += [
        {"stage": "roads/adapt", "seconds": 30.0, "amount": 904, "unit": "tokens", "peak_bytes": 5_000_000}
    ]
    (section,) = tell_cost(told)
    kinds = {row[0]: row[1:] for row in section.figures[0].data.rows}
    assert kinds["adapt"] == ["2.0", "–", "5,000 tokens", "5"]
    assert [row[0] for row in section.tables[0].rows][:3] == ["bridges/split", "bridges/adapt", "roads/adapt"]


def test_the_page_asks_nothing_of_any_network_and_runs_no_script(experiment_folder: Path, written: Written) -> None:
    text = written(experiment_folder)["report.html"]
    page = Page(text)
    assert not page.open
    assert not {"script", "iframe", "link", "img", "object", "form"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    # Names of XML vocabularies are no addresses; nothing else may look like one.
    assert set(re.findall(r"https?://[^\"' <)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in text


def test_every_figure_has_its_own_ids_and_its_numbers_below_it(experiment_folder: Path, written: Written) -> None:
    text = written(experiment_folder)["report.html"]
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert page.tags.count("figure") == text.count("The numbers behind it") == page.tags.count("svg") >= 5


def test_text_of_a_run_cannot_break_the_page(run_folder: Path, written: Written) -> None:
    texts = written(run_folder)
    assert "<script>alert" not in texts["report.html"]
    assert "&lt;script&gt;alert(1)" in texts["report.html"]
    tokens = MarkdownIt().parse(texts["report.md"])
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open" and token.tag == "h2"]
    assert titles == [section.title for section in sections_of(read_story(run_folder, examples=3))]
    assert any(HOSTILE in token.content for token in tokens if token.type == "fence")


def test_the_same_folder_gives_the_same_bytes(experiment_folder: Path, written: Written) -> None:
    assert written(experiment_folder) == written(experiment_folder)


def test_a_run_by_itself_is_told_without_a_verdict(run_folder: Path) -> None:
    titles = [section.title for section in sections_of(read_story(run_folder, examples=2))]
    assert titles == ["Examples", "Examples: some that were kept", "Examples: some that were rejected", "Recipe"]


def test_the_ledger_labels_and_lengths_add_up(run_folder: Path) -> None:
    summary, story = Run(run_folder).summary(), read_run(run_folder, "bridges", 2)
    assert summary.kept > 0
    for counts in story.lengths.values():
        assert sum(counts) == summary.kept
    assert sum(story.labels["yes-no question answering"].values()) == summary.kept_by_task["yes-no question answering"]
    assert "extractive question answering" not in story.labels
    assert [one["reason"] for one in story.rejects].count("duplicate document") == 1
    flow = next(figure for section in sections_of(read_story(run_folder, examples=2)) for figure in section.figures)
    assert sum(int(row[2]) for row in flow.data.rows) == summary.prompts


def test_a_folder_of_something_else_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="katsuo run"):
        read_story(tmp_path, examples=1)


def test_without_the_drawing_library_the_report_says_what_to_install(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("matplotlib", "katsuo.report.figures", "katsuo.report.page"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"katsuo\[report\]"):
        write_report(run_folder, tmp_path)


def test_a_damaged_line_of_metrics_is_an_error_and_not_a_gap(experiment_folder: Path, tmp_path: Path) -> None:
    with (experiment_folder / "adapters" / "katsuo" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    with pytest.raises(StoreError, match=r"metrics\.jsonl"):
        write_report(experiment_folder, tmp_path)
