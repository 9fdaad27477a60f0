from __future__ import annotations

import pytest

from katsuo.ctga.catalog import Source
from katsuo.ctga.remix import LostPair, Pair, Recipe, Remixer
from katsuo.errors import SourceError
from katsuo.records import Reason
from katsuo.templates.library import Template

_JINJA = ": {{text}} {{q}} ||| {{ a }} {{ [1, 2, 3] | choice }}"
_TEMPLATES = tuple(Template(f"t{n}", f"{n}{_JINJA}") for n in range(5))
_ROW = {"text": "Some text.", "q": "Why?", "a": "So."}


def remixer(watch, *jinja: str, per_row: int = 1, seed: int = 0, columns=("text", "q", "a")) -> Remixer:
    templates = tuple(Template(f"t{n}", text) for n, text in enumerate(jinja)) or _TEMPLATES
    source = Source("d", "c", "{{ text }}", types={template.name: "summarization" for template in templates})
    return Remixer(Recipe(source, templates, per_row, seed), list(columns), watch)


def only(items) -> Pair | LostPair:
    (item,) = items
    return item


def test_a_pair_is_written_in_the_format_of_the_published_generator(watch):
    pair = only(remixer(watch, "On {{text}}: {{q}} ||| {{a}}").remix(7, _ROW))
    assert pair.input == "<|tasktype|>\nsummarization\n<|context|>\nSome text.\n<|task|>\n"
    assert pair.output == "On {{context}}: Why?\n<|pipe|>\nSo."
    assert pair[3:] == ("d", "c", "t0", 7, "Some text.", "On {{context}}: Why?", "So.")


def test_the_draws_depend_on_seed_source_and_row_alone(watch):
    def drawn(seed: int = 0) -> list[Pair]:
        made = remixer(watch, seed=seed)
        return [only(made.remix(row, _ROW)) for row in range(40)]

    assert drawn() == drawn()
    assert drawn() != drawn(1)
    assert len({pair.template for pair in drawn()}) == 5


def test_more_templates_per_row_contain_those_of_fewer(watch):
    for row in range(20):
        one, three, all_of_them = (
            {pair.output for pair in remixer(watch, per_row=count).remix(row, _ROW)} for count in (1, 3, 0)
        )
        assert (len(one), len(three), len(all_of_them)) == (1, 3, 5)
        assert one < three < all_of_them


@pytest.mark.parametrize(
    ("jinja", "reason"),
    [
        ("{{text}} ||| {{ '' }}", Reason.EMPTY_PART),
        ("{{text}} {{q}}", Reason.EMPTY_PART),
        (" ||| {{text}}", Reason.EMPTY_PART),
        ("{% if false %}{{text}} ||| a{% endif %}", Reason.EMPTY_PART),
        ("{% for n in range(2) %}{{text}} ||| a{% endfor %}", Reason.PARSE_FAILURE),
        ("{{text}} {{ q.__class__ }} ||| a", Reason.FORBIDDEN),
        ("{{text}} {{ 1 / 0 }} ||| a", Reason.TEMPLATE_ERROR),
        ("{{text}} {{ nothing }} ||| a", Reason.ABSENT_COLUMN),
        ("{{text}} {{ '<|pipe|>' }} ||| a", Reason.CONTROL_MARKER),
        ("{{text}} {{ '{{context}' ~ '}' }} ||| a", Reason.CONTROL_MARKER),
    ],
)
def test_a_drawing_that_gives_no_pair_becomes_a_reject_with_its_template(watch, jinja, reason):
    lost = only(remixer(watch, jinja).remix(3, _ROW))
    assert isinstance(lost, LostPair)
    assert (lost.reason, lost.template, lost.row, lost.dataset) == (reason.value, "t0", 3, "d")


@pytest.mark.parametrize(("text", "reason"), [(" \n", Reason.EMPTY_PASSAGE), ("a <|task|> b", Reason.CONTROL_MARKER)])
def test_a_text_that_cannot_stand_in_a_pair_is_rejected_once_per_template(watch, text, reason):
    lost = list(remixer(watch, per_row=2).remix(0, {**_ROW, "text": text}))
    assert [item.reason for item in lost] == [reason.value] * 2


def test_a_separator_in_the_row_is_kept_as_text(watch):
    pair = only(remixer(watch, "{{text}} {{q}} ||| {{a}}").remix(0, {"text": "x ||| y", "q": "p|||q", "a": "r|||s"}))
    assert (pair.context, pair.task_input, pair.task_output) == ("x ||| y", "{{context}} p|||q", "r|||s")


def test_a_context_that_no_column_gives_is_an_error_that_names_the_columns(watch):
    with pytest.raises(SourceError, match='"text"') as caught:
        remixer(watch, columns=("body", "q", "a"))
    assert "body" in caught.value.hint


def test_only_the_columns_that_are_read_are_asked_for(watch):
    assert remixer(watch, "{{text}} ||| {{a}}", columns=("z", "a", "q", "text")).columns == ["a", "text"]


def test_a_place_that_ended_a_worker_is_rejected_without_being_rendered(watch):
    beat = [-1, -1]
    lost = only(remixer(watch, "{{text}} ||| a").remix(3, _ROW, skip=frozenset({(3, 0)}), beat=beat))
    assert lost.reason == Reason.TIME_LIMIT.value
    assert beat == [-1, -1]


def test_a_hidden_separator_counts_as_long_as_in_promptsource_when_a_text_is_cut(watch):
    text = "word " * 407 + "||| end"  # 2,042 characters, but 2,071 with promptsource's stand-in: it is cut
    pair = only(remixer(watch, "{{text}} ||| {{a}}").remix(0, {**_ROW, "text": text}))
    assert pair.context == ("word " * 407).strip() + "..."
