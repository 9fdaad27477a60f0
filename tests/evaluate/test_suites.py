from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from katsuo.config import cache_dir
from katsuo.errors import SourceError, TemplateError, UnknownNameError, UsageError
from katsuo.evaluate.suites import known_suites, load_suite, make_sheet, read_suite, task_suite
from katsuo.evaluate.suites.rows import find_data, read_rows, rename
from katsuo.templates.library import open_library

REAL_CACHE = cache_dir()
SUITE = """\
name: doors
task: ynqa
id: "{{ number }}"
passage: "{{ text }}"
question: "{{ question }}"
gold: "{{ answer }}"
labels: ["yes", "no"]
templates:
- name: below
  answer_choices: Yes ||| No
  jinja: |
    {{ text }}

    {{ question }}
- name: above
  jinja: "{{ question }} {{ labels | join(' or ') }}? {{text}}"
"""
ROWS = [
    {"number": 7, "text": "The door is shut.", "question": "Is it open?", "answer": "no"},
    {"number": 8, "text": "The door is ajar |||.", "question": "Is it open?", "answer": "Yes"},
]


def write(tmp_path, text=SUITE):
    (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "suite.yaml"


def changed(tmp_path, old, new):
    assert old in SUITE
    return write(tmp_path, SUITE.replace(old, new))


def test_every_template_asks_about_every_row(tmp_path):
    suite = read_suite(write(tmp_path))
    sheet = make_sheet(suite, ROWS)
    first, second = (sheet.of(item) for item in sheet.items)
    assert [question.instruction() for question in first] == [
        "The door is shut.\n\nIs it open?",
        "Is it open? yes or no? The door is shut.",
    ]
    assert [question.choices for question in first] == [("Yes", "No"), ("yes", "no")]
    assert [question.gold for question in (*first, *second)] == [1, 1, 0, 0]
    assert second[0].instruction("x") == "x\n\nIs it open?"
    assert second[0].instruction().startswith("The door is ajar |||.")
    assert [item.id for item in sheet.items] == ["7", "8"]
    assert suite.metric == "macro_f1"


def test_a_limit_draws_by_hash_and_not_by_order(tmp_path):
    suite = read_suite(write(tmp_path))
    rows = [{**ROWS[0], "number": number, "text": f"Door {number} is shut."} for number in range(200)]
    drawn = [item.row for item in make_sheet(suite, rows, limit=20).items]
    assert len(drawn) == 20
    assert drawn == sorted(drawn)
    assert drawn != list(range(20))
    assert set(drawn) <= {item.row for item in make_sheet(suite, rows, limit=50).items}
    assert drawn != [item.row for item in make_sheet(suite, rows, limit=20, seed=1).items]


def test_empty_and_repeated_rows_are_left_out_and_counted(tmp_path):
    odd = [{**ROWS[0], "text": " ", "number": 9}, {**ROWS[0], "answer": "", "number": 10}, {**ROWS[0], "number": 11}]
    sheet = make_sheet(read_suite(write(tmp_path)), [*ROWS, *odd])
    assert [item.row for item in sheet.items] == [0, 1]
    assert sheet.left_out == {"empty": 2, "duplicate": 1}
    with pytest.raises(SourceError, match="no usable test row"):
        make_sheet(read_suite(write(tmp_path)), odd[:2])


def test_rows_that_differ_only_in_what_the_templates_ask_are_not_the_same(tmp_path):
    unnamed = read_suite(changed(tmp_path, 'question: "{{ question }}"\n', ""))
    other = {**ROWS[0], "question": "Is it locked?", "number": 9}
    sheet = make_sheet(unnamed, [*ROWS, other, {**other, "number": 10}])
    assert ([item.row for item in sheet.items], sheet.left_out) == ([0, 1, 2], {"duplicate": 1})
    row = {"context": "The sea is blue.", "question": "Which?", "options": ["red", "blue"], "answer": "b"}
    suite = task_suite("mcqa")
    rows = rename([row, {**row, "options": ["blue", "red"]}, row], suite.columns, where=None)
    assert make_sheet(suite, rows).left_out == {"duplicate": 1}


@pytest.mark.parametrize("column", ["text", "question", "answer"])
def test_a_missing_value_is_empty_and_the_word_none_is_not(tmp_path, column):
    sheet = make_sheet(read_suite(write(tmp_path)), [ROWS[1], {**ROWS[0], column: None}])
    assert sheet.left_out == {"empty": 1}
    words = {**ROWS[0], "text": "None", "question": "None"}
    assert make_sheet(read_suite(write(tmp_path)), [words]).items[0].passage == "None"
    none = read_suite(changed(tmp_path, '["yes", "no"]', '["some", "None"]'))
    assert make_sheet(none, [{**ROWS[0], "answer": "None"}]).of(
        make_sheet(none, [{**ROWS[0], "answer": "None"}]).items[0]
    )


def test_a_label_outside_the_set_is_an_error_that_shows_what_occurs(tmp_path):
    with pytest.raises(SourceError, match='label "perhaps", which is not among: yes, no') as caught:
        make_sheet(
            read_suite(write(tmp_path)), [*ROWS, {**ROWS[0], "answer": "perhaps", "question": "Is it?", "number": 9}]
        )
    assert "--labels" in caught.value.hint


def test_ids_have_to_be_unique(tmp_path):
    with pytest.raises(SourceError, match="not unique"):
        make_sheet(read_suite(write(tmp_path)), [ROWS[0], {**ROWS[1], "number": 7}])


def test_a_file_without_rows_is_told_so(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(SourceError, match="holds no row"):
        rename(read_rows(tmp_path / "none.jsonl"), task_suite("nli").columns, where=tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ text }}\n", "{{ txt }}\n", "never prints the passage"),
        ('jinja: "{{ question }}', 'jinjaa: "{{ question }}', 'suite.yaml:16: unknown key "jinjaa"'),
        ("Yes ||| No", "Yes ||| No ||| Maybe", "3 answer choices for 2 labels"),
        ("name: above", "name: below", "the name of two templates"),
        ("task: ynqa", "task: ynqaa", 'suite.yaml:2: unknown task type "ynqaa"'),
        ('gold: "{{ answer }}"', "", "gold: field required"),
        ("templates:", "templates: [", "not YAML"),
    ],
)
def test_a_broken_suite_is_refused_with_file_and_line(tmp_path, old, new, said):
    with pytest.raises(TemplateError, match=said.replace("[", r"\[")):
        read_suite(changed(tmp_path, old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    {{ question }}\n", "    {{ qestion }}\n", 'reads "qestion", which is no column'),
        ("    {{ question }}\n", "    {{ question\n", "not Jinja"),
        ("    {{ question }}\n", "    {{ question.__class__ }}\n", "forbidden"),
        ("    {{ question }}\n", "    {{ 1 / (number - 7) }}\n", "fails on row 0"),
        ("Yes ||| No", "Yes ||| yes", "no two different choices"),
    ],
)
def test_a_template_that_fails_is_named_with_the_row(tmp_path, old, new, said):
    with pytest.raises((TemplateError, SourceError), match=said):
        make_sheet(read_suite(changed(tmp_path, old, new)), ROWS)


@pytest.mark.parametrize("labels", ["[]", '["yes", "no", "maybe"]'])
def test_choices_that_are_not_as_many_as_labels_are_an_error(tmp_path, labels):
    text = SUITE.replace('labels: ["yes", "no"]', f"labels: {labels}").replace("Yes ||| No", "'{{ question }} ||| No'")
    rows = [*ROWS, {**ROWS[0], "number": 9, "answer": "maybe"}]
    with pytest.raises(TemplateError, match='"below" gives 2 answer choices for row 0, and there are 3 labels'):
        make_sheet(read_suite(write(tmp_path, text)), rows)


def test_options_of_a_row_are_found_by_text_letter_or_number():
    suite = task_suite("mcqa")
    assert suite.metric == "accuracy"
    for answer in ("Blue", "b", "1", 1):
        row = {
            "context": "The sea is blue.",
            "question": "Which?",
            "options": ["red", "blue", "green"],
            "answer": answer,
        }
        sheet = make_sheet(suite, rename([row], suite.columns, where=None))
        assert {question.gold for question in sheet.of(sheet.items[0])} == {1}
    with pytest.raises(SourceError, match="none of its options"):
        make_sheet(suite, rename([{**row, "answer": "yellow"}], suite.columns, where=None))


def test_options_may_be_a_table_of_texts_and_labels_and_no_text():
    suite = task_suite("mcqa")
    row = {"context": "The sea is blue.", "question": "Which?", "answer": "2"}
    options = {"text": ["red", "blue", "green"], "label": ["1", "2", "3"]}
    sheet = make_sheet(suite, rename([{**row, "options": options}], suite.columns, where=None))
    questions = sheet.of(sheet.items[0])
    assert {question.choices for question in questions} == {("red", "blue", "green")}
    assert {question.gold for question in questions} == {1}  # the label, and not the number counted from 0
    assert "- blue" in questions[0].instruction()
    with pytest.raises(SourceError, match="no two different choices for row 0"):
        make_sheet(suite, rename([{**row, "options": "red, blue"}], suite.columns, where=None))


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["at noon", "noon"], "answer_start": [1, 4]},
        [{"text": "at noon", "answer_start": 1}, {"text": "noon", "answer_start": 4}],
        ["at noon", "noon"],
    ],
)
def test_gold_answers_may_be_squads_a_list_or_one_text(answers):
    suite = task_suite("exqa")
    row = {"context": "They left at noon.", "question": "When?", "answers": answers}
    (item,) = make_sheet(suite, rename([row], suite.columns, where=None)).items
    assert item.golds == ("at noon", "noon")
    for one in ("noon", {"text": "noon", "answer_start": 4}):
        (item,) = make_sheet(suite, rename([{**row, "answers": one}], suite.columns, where=None)).items
        assert item.golds == ("noon",)
    assert make_sheet(suite, rename([row, {**row, "answers": []}], suite.columns, where=None)).left_out == {"empty": 1}


def test_columns_of_a_user_are_taken_by_their_usual_names_or_by_the_names_given():
    suite = task_suite("ynqa")
    row = {"abstract": "It rains.", "question": "Is it dry?", "label": "no"}
    with pytest.raises(UsageError, match='no column "context" or "passage" or "text"') as caught:
        rename([row], suite.columns, where="test.jsonl")
    assert "--column passage=" in caught.value.hint
    (renamed,) = rename([row], suite.renamed({"passage": "abstract"}).columns, where="test.jsonl")
    assert (renamed["passage"], renamed["answer"]) == ("It rains.", "no")
    with pytest.raises(UnknownNameError, match="pasage"):
        suite.renamed({"pasage": "abstract"})


def test_labels_of_a_user_take_the_place_of_the_suites():
    suite = task_suite("nli").relabelled(["SUPPORTS", "NOT ENOUGH INFO", "REFUTES"])
    row = {"premise": "It rains.", "hypothesis": "It is dry.", "label": "REFUTES"}
    sheet = make_sheet(suite, rename([row], suite.columns, where=None))
    assert {question.gold for question in sheet.of(sheet.items[0])} == {2}
    with pytest.raises(UsageError, match="3 labels"):
        task_suite("nli").relabelled(["a", "b"])
    assert task_suite("ynqa").relabelled(["yes", "no", "maybe"]).labels == ("yes", "no", "maybe")
    with pytest.raises(UsageError, match="takes no labels"):
        task_suite("exqa").relabelled(["a", "b"])


def test_texts_with_labels_are_asked_about_with_the_labels_that_occur():
    suite = task_suite("sentiment")
    rows = [{"text": "Lovely.", "label": "good"}, {"text": "Awful.", "label": "bad"}]
    sheet = make_sheet(suite, rename(rows, suite.columns, where=None))
    assert sheet.labels == ("bad", "good")
    assert "bad, good" in sheet.of(sheet.items[0])[0].instruction()
    with pytest.raises(UsageError, match="no templates for test sets"):
        task_suite("summarization")


def test_a_suite_may_be_narrowed_to_some_templates():
    suite = task_suite("ynqa")
    assert len(suite.narrowed(2).templates) == 2
    assert [template.name for template in suite.narrowed(["choose"]).templates] == ["choose"]
    with pytest.raises(UnknownNameError, match="chose"):
        suite.narrowed(["chose"])
    with pytest.raises(UnknownNameError, match="pubmed"):
        load_suite("pubmed")


def test_rows_are_read_from_every_kind_of_table(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in ROWS), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,answer\nThe door,yes\n", encoding="utf-8-sig")
    assert read_rows(tmp_path / "a.jsonl") == read_rows(tmp_path / "a.parquet") == ROWS
    assert read_rows(tmp_path / "a.csv") == [{"text": "The door", "answer": "yes"}]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{', "line 2"),
        ("a.jsonl", "[1]\n", "no object"),
        ("a.jsonl", '{"a": "\\ud83d\\ude00"}\n{"a": ["\\ud83d"]}', 'line 2 of ".*" holds half a character'),
        ("a.csv", "a,b\n1,2,3\n", "another number of fields"),
        ("a.parquet", "no", "cannot read"),
        ("a.txt", "no", "no table"),
        ("a.jsonl", b"\xff\xfe\x00", "cannot read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SourceError, match=said):
        read_rows(tmp_path / name)


def test_the_rows_of_a_suite_lie_beside_it_or_in_the_folder_given(tmp_path):
    (tmp_path / "t.jsonl").write_text("{}", encoding="utf-8")
    assert find_data("t.jsonl", None, suite_file=tmp_path / "s.yaml") == tmp_path / "t.jsonl"
    assert find_data("t.jsonl", tmp_path, suite_file=tmp_path / "x" / "s.yaml") == tmp_path / "t.jsonl"
    assert find_data("x.jsonl", tmp_path / "t.jsonl", suite_file=tmp_path / "s.yaml") == tmp_path / "t.jsonl"
    for data in ("u.jsonl", None):
        with pytest.raises((SourceError, UsageError)):
            find_data(data, None, suite_file=tmp_path / "s.yaml")
    with pytest.raises(SourceError, match="there is no"):
        find_data("t.jsonl", tmp_path / "nowhere", suite_file=tmp_path / "s.yaml")


def test_the_known_suites_ask_about_the_real_rows(shared_data, monkeypatch):
    monkeypatch.setenv("KATSUO_CACHE", str(REAL_CACHE))
    try:
        open_library()
    except SourceError as error:
        pytest.skip(f"the pinned templates are not here and cannot be fetched: {error}")
    assert len(known_suites()) == 6
    for name in known_suites():
        suite = load_suite(name)
        rows = read_rows(shared_data / "data" / str(suite.data))
        sheet = make_sheet(suite, rows, limit=20)
        assert (len(suite.templates), len(sheet.items)) == (5, 20)
        for item in sheet.items:
            for question in sheet.of(item):
                assert len(question.parts) == 2
                assert item.question in "".join(question.parts)
    assert "Reddit" in "".join(template.jinja for template in load_suite("squadshifts_reddit").templates)


def test_an_answer_that_may_be_a_text_or_a_number_is_refused():
    suite = task_suite("mcqa")
    row = {"context": "Two and three.", "question": "How many?", "options": ["2", "3", "4", "5"]}

    def golds(**changes):
        sheet = make_sheet(suite, rename([{**row, **changes}], suite.columns, where=None))
        return {question.gold for question in sheet.of(sheet.items[0])}

    with pytest.raises(SourceError, match='answer 2 of row 0 may be the option "2" or the option at place 2'):
        golds(answer=2)
    assert golds(answer="2") == {0}
    assert golds(answer=0) == {0}
    assert golds(answer=1, options=["0", "1", "2"]) == {1}
    with pytest.raises(SourceError, match="none of its options"):
        golds(answer="²")


def test_a_label_that_is_unknown_is_told_with_what_to_fill_in():
    suite = task_suite("nli")
    rows = [{"premise": "It rains.", "hypothesis": word, "label": word} for word in ("SUPPORTS", "REFUTES")]
    with pytest.raises(SourceError) as caught:
        make_sheet(suite, rename(rows, suite.columns, where=None))
    assert 'has the label "REFUTES", which is not among: entailment, neutral, contradiction' in caught.value.message
    assert caught.value.hint.endswith("for each of those, in that order; in the data stand: REFUTES, SUPPORTS")
    assert '--labels "' not in caught.value.hint  # the order in which they occur is not that of the suite


def test_labels_that_differ_only_by_case_are_refused():
    suite = task_suite("sentiment")
    rows = [{"text": "Lovely.", "label": "good"}, {"text": "Fine.", "label": "Good"}, {"text": "No.", "label": "bad"}]
    with pytest.raises(SourceError, match='the labels "Good" and "good", which differ only by case'):
        make_sheet(suite, rename(rows, suite.columns, where=None))


def test_labels_that_occur_may_be_given_whatever_the_templates_choose_from(tmp_path):
    suite = read_suite(changed(tmp_path, 'labels: ["yes", "no"]', "labels: []"))
    assert suite.relabelled(["no", "yes"]).labels == ("no", "yes")


def test_a_csv_field_may_be_long(tmp_path):
    (tmp_path / "a.csv").write_text(f"text,answer\n{'long ' * 40_000},yes\n", encoding="utf-8")
    limit = csv.field_size_limit(131_072)
    try:
        assert len(read_rows(tmp_path / "a.csv")[0]["text"]) == 200_000
    finally:
        csv.field_size_limit(limit)
