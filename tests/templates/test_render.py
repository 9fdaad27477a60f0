from __future__ import annotations

import time

import pytest

from katsuo.errors import TemplateError
from katsuo.records import Reason
from katsuo.templates.marks import PIPE, with_cut
from katsuo.templates.sandbox.draws import Draws
from katsuo.templates.sandbox.environment import RenderError, cut, most_frequent
from katsuo.templates.sandbox.render import Renderer, protect, unprotect


@pytest.fixture
def renderer(watch) -> Renderer:
    return Renderer(Draws(0, "s"), watch, longest=10_000)


def render(renderer: Renderer, jinja: str, choices: str | None = None, **row) -> str:
    return renderer.render(renderer.compile("t", with_cut(jinja), choices), row)


def reason_of(renderer: Renderer, jinja: str, **row) -> Reason:
    with pytest.raises(RenderError) as caught:
        render(renderer, jinja, **row)
    assert caught.value.detail
    return caught.value.reason


def test_a_printed_text_is_cut_at_a_word_end_with_three_dots():
    text = "word " * 500
    assert cut(text) == "word " * 408 + "word..."
    assert len(cut("x" * 3000)) == 2048


def test_a_text_that_is_hardly_too_long_is_left_whole():
    assert cut("x" * 2053) == "x" * 2053
    assert cut("x" * 2054) == "x" * 2045 + "..."


def test_most_frequent_gives_all_that_tie_in_order_of_occurrence():
    assert most_frequent(["b", "a", "a", "b", "c"]) == ["b", "a"]
    assert most_frequent([]) is None


def test_answer_choices_are_parted_and_stripped(renderer):
    assert render(renderer, "{{ answer_choices[label] }}", "No ||| Yes", label=1) == "Yes"
    assert render(renderer, "{{ answer_choices | length }}", "{{ options | join('|||') }}", options=["a", "b"]) == "2"
    assert render(renderer, "{{ answer_choices }}", None) == "None"


def test_a_separator_inside_a_value_parts_nothing(renderer):
    row = protect({"text": "a ||| b", "options": ["c ||| d", "e"]})
    choices = "{{ options | join('|||') }}"
    found = renderer.render(renderer.compile("t", with_cut("{{text}} {{answer_choices[0]}}"), choices), row)
    assert unprotect(found) == "a ||| b c ||| d"
    assert PIPE not in found


def test_a_name_that_a_template_sets_anew_still_reads_its_column(renderer):
    compiled = renderer.compile("t", "{% set text = text | trim %}{{ text }}")
    assert "text" in compiled.variables
    assert renderer.render(compiled, {"text": " a "}) == "a"


def test_nothing_is_left_over_from_the_row_before(renderer):
    compiled = renderer.compile("t", "{% if a %}{% set b = a %}{% endif %}{{ b }}")
    assert [renderer.render(compiled, {"a": value}) for value in ("x", "", "y")] == ["x", "", "y"]


def test_a_choice_depends_on_its_place_alone(watch):
    def drawn(seed: int, row: int) -> str:
        renderer = Renderer(Draws(seed, "s"), watch)
        renderer.draws.enter(row, "t")
        return render(renderer, "{{ range(1000) | choice }} {{ range(1000) | random }}")

    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(seed, row) for seed in range(3) for row in range(3)}) == 9


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ ''.__class__ }}",
        "{{ row.__init__.__globals__ }}",
        "{{ cycler.__init__ }}",
        "{% set x = [].append(1) %}{{ x }}",
        "{{ range(10**7) }}",
    ],
)
def test_what_a_template_has_no_business_with_is_refused(renderer, jinja):
    assert reason_of(renderer, jinja, row={}) in {Reason.FORBIDDEN, Reason.TEMPLATE_ERROR}


def test_an_endless_loop_is_ended(renderer):
    began = time.monotonic()
    many = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert reason_of(renderer, many) is Reason.TIME_LIMIT
    assert time.monotonic() - began < 5
    assert render(renderer, "still {{ a }}", a="here") == "still here"


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for a in range(99999) %}{{ 'long text' }}{% endfor %}",
        "{{ ('x' * 999999) }}",
        "{{ (2 ** 99999999) }}",
        "{{ (9 ** 1000 * 9 ** 1000) }}",
        "{{ ([1] * 999999) }}",
        "{{ ('%99999999d' % 1) }}",
        "{{ ('%*d' % (99999999, 1)) }}",
        "{{ 'x' | center(99999999) }}",
        "{{ '%99999999d' | format(1) }}",
        "{{ ('x' * 9999) | replace('x', 'y' * 9999) }}",
    ],
)
def test_an_output_out_of_proportion_is_refused(renderer, jinja):
    assert reason_of(renderer, jinja) is Reason.OUTPUT_LIMIT


def test_a_failure_on_a_row_says_what_failed(renderer):
    assert reason_of(renderer, "{{ a / b }}", a=1, b=0) is Reason.TEMPLATE_ERROR


def test_what_is_no_jinja_is_named_with_its_line(renderer):
    with pytest.raises(TemplateError, match=r'"bad" is not Jinja: .*line 2'):
        renderer.compile("bad", "fine\n{% if %}")


def test_the_global_generator_is_never_asked(renderer, monkeypatch):
    monkeypatch.setattr("random.choice", lambda _: pytest.fail("the global generator was asked"))
    assert render(renderer, "{{ [1] | choice }}{{ [1] | random }}") == "11"
    with pytest.raises(RenderError):
        render(renderer, "{{ lipsum() }}")
