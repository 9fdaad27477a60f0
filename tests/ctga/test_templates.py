from __future__ import annotations

from pathlib import Path

import pytest

from katsuo.ctga.catalog import Source
from katsuo.ctga.templates import find_templates, meta_template, prints_context
from katsuo.errors import TemplateError
from katsuo.templates.library import FolderLibrary, Template, open_library, parse_templates
from katsuo.templates.marks import HERE, PIPE

YAML = """\
dataset: d
templates:
  one: !Template
    answer_choices: null
    jinja: '{{context}} ||| {{answer}}'
    metadata: !TemplateMetadata {choices_in_prompt: null}
    name: first
  two: !Template {answer_choices: 'a ||| b', jinja: 'no text ||| {{answer}}', name: second}
"""


def source(context: str = "{{ context }}", **values) -> Source:
    return Source("d", "", context, **values)


@pytest.mark.parametrize("printed", ["{{context}}", "{{ context }}", "{{  context}}", "{{ context\n}}"])
def test_white_space_inside_the_braces_may_differ(printed):
    assert prints_context(Template("t", f"Read {printed} ||| x"), source())


@pytest.mark.parametrize("printed", ["{{contexts}}", "{{ context | upper }}", "{context}", "context"])
def test_another_expression_is_not_the_context(printed):
    assert not prints_context(Template("t", f"Read {printed} ||| x"), source())


def test_an_exact_context_has_to_stand_letter_by_letter():
    exact = source("{{ a }}{{ b }}", match="exact")
    assert prints_context(Template("t", "{{ a }}{{ b }} ||| x"), exact)
    assert not prints_context(Template("t", "{{a}}{{ b }} ||| x"), exact)


def test_every_context_becomes_the_placeholder_and_every_other_print_is_cut():
    made = meta_template(Template("t", "{{context}} {{ question }} ||| {{ context }}{{a ~ b}}"), source())
    assert made == f"{HERE} {{{{ question  | katsuo_cut }}}} {PIPE} {HERE}{{{{a ~ b | katsuo_cut }}}}"


def test_promptsource_files_are_read_without_building_objects():
    first, second = parse_templates(YAML, where="d")
    assert (first.name, first.answer_choices) == ("first", None)
    assert (second.name, second.answer_choices) == ("second", "a ||| b")


@pytest.mark.parametrize("text", ["templates: [", "templates: 3", "other: {}", "templates: {a: {name: x}}"])
def test_a_file_of_another_form_is_refused_with_its_name(text):
    with pytest.raises(TemplateError, match="squad"):
        parse_templates(text, where="squad")


def test_python_objects_in_a_template_file_are_refused():
    with pytest.raises(TemplateError, match="not YAML"):
        parse_templates("templates: !!python/object/apply:os.system [true]", where="d")


def test_templates_are_found_in_a_folder_of_that_layout(tmp_path: Path):
    (tmp_path / "templates" / "d").mkdir(parents=True)
    (tmp_path / "templates" / "d" / "templates.yaml").write_text(YAML)
    library = open_library(tmp_path)
    assert isinstance(library, FolderLibrary)
    found = find_templates(source(types={"first": "qa", "second": "qa"}), library)
    assert [template.name for template in found] == ["first"]


def test_a_folder_without_templates_is_refused(tmp_path: Path):
    with pytest.raises(TemplateError, match="no templates in"):
        open_library(tmp_path)


def test_a_template_that_the_library_lacks_is_named(tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "templates.yaml").write_text(YAML)
    with pytest.raises(TemplateError, match='"third"'):
        find_templates(source(types={"third": "qa"}), FolderLibrary(tmp_path))
    with pytest.raises(TemplateError, match="there is no"):
        find_templates(Source("e", "", "{{x}}", types={"a": "qa"}), FolderLibrary(tmp_path))
