from __future__ import annotations

from pathlib import Path

import pytest

from katsuo.ctga.check import CheckReport, Finding, check_pack
from katsuo.ctga.pack import read_pack
from katsuo.errors import TemplateError

_ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def change(pack: Path, old: str, new: str) -> Path:
    file = pack / "ctga.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    return pack


def errors(report: CheckReport) -> list[Finding]:
    return [finding for finding in report.findings if finding.is_error]


def test_a_pack_gives_sources_with_full_task_types_and_its_own(pack):
    (source,) = read_pack(pack)
    assert list(source.types) == ["ask", "shout", "sometimes"]
    assert list(source.types.values()) == ["extractive question answering", "text generation", "rhyme finding"]
    assert source.data == str(pack / "train.jsonl")


def test_a_good_pack_is_usable_and_shows_samples(pack):
    report = check_pack(pack, rows=4)
    assert report.is_usable
    assert len(report.samples) == 10
    (note,) = report.findings
    assert "sometimes" in note.problem
    assert "2 of 4 rows" in note.problem


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("task_type: exqa", "task_type: exq", 12, "did you mean"),
        ("name: shout", "name: ask", 14, "two templates"),
        ("licence: CC0-1.0", "license: CC0-1.0", 8, 'did you mean "licence"'),
        ("language: en", "language: [", 2, "not YAML"),
        ("  context:", "  contexts:", 7, 'did you mean "context"'),
    ],
)
def test_a_form_that_is_wrong_is_told_with_file_and_line(pack, old, new, line, said):
    with pytest.raises(TemplateError) as caught:
        read_pack(change(pack, old, new))
    assert said in str(caught.value)
    found = int(caught.value.message.split("ctga.yaml:")[1].split(":")[0])
    assert abs(found - line) <= 1


@pytest.mark.parametrize(
    ("old", "new", "said", "cure"),
    [
        ("Who is it about? |||", "Who is it about?", "0 separators", "|||"),
        ("Who is it about? |||", "Who ||| is it about? |||", "2 separators", "once"),
        ('"{{ text }} Who', '"{{ txt }} Who', "never prints the context", "{{ text }}"),
        ("||| {{ who }}\"", "||| {{ whom }}\"", '"whom", which is no column', 'did you mean "who"'),
        ("||| {{ who }}\"", "||| {{ who \"", "is not Jinja", "}"),
        ("||| {{ who }}\"", "||| {{ who.__class__ }}\"", "forbidden", "columns of its row"),
        ("||| {{ who }}\"", f"||| {_ENDLESS}\"", "time limit", "loop"),
        ('context: "{{ text }}"', 'context: "{{ texts }}"', "never prints the context", "{{ texts }}"),
        ("data: train.jsonl", "data: rows.jsonl", "no rows", "train.parquet"),
    ],
)  # fmt: skip
def test_a_template_that_is_wrong_is_told_with_its_line_and_a_cure(pack, old, new, said, cure):
    report = check_pack(change(pack, old, new), rows=2)
    assert not report.is_usable
    finding = next(finding for finding in errors(report) if said in finding.problem)
    assert cure in finding.cure
    assert "ctga.yaml:" in finding.where


def test_the_line_of_a_template_is_where_its_text_stands(pack):
    report = check_pack(change(pack, "Say {{", "Say {{ no_column }} {{"), rows=2)
    (finding,) = errors(report)
    number = int(finding.where.rsplit(":", 1)[1])
    assert "Say" in (pack / "ctga.yaml").read_text().split("\n")[number - 1]


def test_a_name_after_a_dot_that_gives_nothing_is_noted(pack):
    report = check_pack(change(pack, "Who is it about?", "Who {{ who.name }} is it about?"), rows=2)
    assert report.is_usable
    assert any("prints nothing somewhere" in finding.problem for finding in report.findings)


def test_a_pack_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(TemplateError, match="cannot read the pack"):
        check_pack(tmp_path / "no.yaml")


@pytest.mark.parametrize("folder", sorted(EXAMPLES.glob("ctga-*")), ids=lambda path: path.name)
def test_every_pack_in_the_examples_is_usable(folder):
    report = check_pack(folder)
    assert errors(report) == []
    assert report.samples


def test_the_pack_in_the_docs_is_one(tmp_path):
    text = (EXAMPLES.parent / "docs" / "ctga.md").read_text(encoding="utf-8")
    (tmp_path / "ctga.yaml").write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    (source,) = read_pack(tmp_path)
    assert source.types["erlaubt"] == "yes-no question answering"
