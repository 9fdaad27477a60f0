"""What is trained on: held-out passages never, types in equal parts, licences that were left out never."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from conftest import write_pairs
from katsuo.errors import SourceError, UsageError
from katsuo.store import Run
from katsuo.tasks.codec import join_pair
from katsuo.train.data import Place, allow, count_types, draw, draw_what_fits, hash_of, hold_out
from katsuo.train.encode import Encoder, Limits, Pair
from katsuo.train.read import PairFolder, RunExamples, read_instructions
from katsuo.train.recipes import LAPTOP, Data


def places_of(**counts):
    return sorted(
        (
            Place(0, row, name, name, hash_of(f"{name} {row // 2}"), hash_of(f"{name} {row} order"))
            for name, count in counts.items()
            for row in range(count)
        ),
        key=lambda place: place.order,
    )


def test_no_held_out_passage_is_trained_on():
    held_out, rest = hold_out(places_of(a=200, b=100), Data(held_out=30))
    assert len(held_out) == 30
    assert not {place.passage for place in held_out} & {place.passage for place in rest}
    assert len(rest) > 200


def test_what_is_held_out_has_the_mix_of_the_training():
    held_out, _ = hold_out(places_of(a=2000, b=100, c=10), Data(held_out=40, balance="types"))
    assert count_types(held_out) == {"a": 15, "b": 15, "c": 2}


def test_a_small_folder_holds_out_a_fifth_at_most_and_none_when_asked():
    assert len(hold_out(places_of(a=20), Data(held_out=256))[0]) == 4
    assert hold_out(places_of(a=20), Data(held_out=0)) == ([], places_of(a=20))


def test_a_draw_under_balance_fills_scarce_types_first():
    drawn = draw(places_of(a=500, b=60, c=10), 100, balance="types", weights={})
    assert count_types(drawn) == {"a": 45, "b": 45, "c": 10}
    assert len(draw(places_of(a=3, b=2), 100, balance="types", weights={})) == 5


def test_a_draw_can_balance_the_labels_of_each_type():
    labelled = [replace(place, label="01112"[place.order % 5]) for place in places_of(a=500)]
    labelled += [replace(place, label="0") for place in places_of(b=500)]
    drawn = draw(sorted(labelled, key=lambda place: place.order), 400, balance="labels", weights={})
    counts = Counter((place.task_type, place.label) for place in drawn)
    assert counts["b", "0"] == 200
    assert {counts["a", label] for label in "012"} <= {66, 67}


def test_a_draw_can_leave_out_what_a_label_has_beyond_the_rarest_of_its_type():
    labelled = [replace(place, label="011112"[place.order % 6]) for place in places_of(a=60)]
    labelled += [replace(place, label="01"[place.order % 2]) for place in places_of(b=40)] + places_of(c=9)
    labelled.sort(key=lambda place: place.order)
    there = Counter((place.task_type, place.label) for place in labelled)
    least = {"a": min(there["a", label] for label in "012"), "b": min(there["b", label] for label in "01")}
    drawn = draw(labelled, 1000, balance="equal_labels", weights={})
    told = {("a", label): least["a"] for label in "012"} | {("b", label): least["b"] for label in "01"}
    assert Counter((place.task_type, place.label) for place in drawn) == told | {("c", ""): 9}
    assert drawn == sorted(drawn, key=lambda place: place.order)
    # Of a label those stay that come first in the order of the draw, and fewer of all where fewer are wanted.
    first = [place for place in labelled if (place.task_type, place.label) == ("a", "1")][: least["a"]]
    assert [place for place in drawn if (place.task_type, place.label) == ("a", "1")] == first
    few = Counter((place.task_type, place.label) for place in draw(labelled, 18, balance="equal_labels", weights={}))
    assert few == {("a", "0"): 2, ("a", "1"): 2, ("a", "2"): 2, ("b", "0"): 3, ("b", "1"): 3, ("c", ""): 6}


def test_what_equal_labels_leave_out_is_counted_after_what_is_too_long(small_model):
    class Source:
        def pairs(self, places):
            for place in places:
                yield Pair("x" * (1000 if place.label == "0" and place.row < 8 else 10), "y")

    encoder = Encoder(AutoTokenizer.from_pretrained(small_model()), end_tokens={2}, limits=Limits(64))
    places = [replace(place, label="0" if place.row < 20 else "1") for place in places_of(a=100)]
    recipe = LAPTOP.override({"max_steps": 100, "data.balance": "equal_labels"})
    drawn = draw_what_fits(Source(), places, recipe, encoder)
    assert Counter(place.label for place in drawn) == {"0": 12, "1": 12}
    assert encoder.ledger.rejected == {"prompt too long": 8, "over the cap": 68}


def test_a_runs_labels_count_by_what_they_stand_for(small_run):
    run = Run(small_run)
    labels = Counter((place.task_type, place.label) for place in RunExamples(run, lambda *told: Pair(*told)).places(0))
    assert set(labels) == {
        ("yes-no question answering", "0"), ("yes-no question answering", "1"), ("extractive question answering", "")
    }  # fmt: skip
    answers = Counter(one.response.casefold() for one in run.examples())
    assert labels["yes-no question answering", "0"] == answers["yes"] + answers["true"]


def test_a_run_is_reworded_where_it_can_be_and_nothing_is_lost(small_run):
    run = Run(small_run)
    plain, reworded = (RunExamples(run, lambda *told: Pair(*told), is_reworded) for is_reworded in (False, True))
    places = list(plain.places(0))
    before, after = list(plain.pairs(places)), list(reworded.pairs(places))
    assert len(before) == len(after)
    changed = [pair for pair, other in zip(before, after, strict=True) if pair != other]
    assert 0 < len(changed) <= len(reworded.reworded)  # a wording may be its own
    assert not plain.reworded
    assert after == list(RunExamples(run, lambda *told: Pair(*told), True).pairs(places))


def test_responses_of_few_words_are_left_out_and_counted_and_labels_stay(small_run):
    run = Run(small_run)
    places = list(RunExamples(run, lambda *told: Pair(*told)).places(0))
    spans = [place for place in places if not place.label]
    told = [len(one.response.split()) for one in run.examples() if one.task_type.startswith("extractive")]
    assert sorted(told) == sorted(place.words for place in spans)
    labels = [place for place in places if place.label]
    longer = [replace(place, words=place.words + 1) for place in spans[:5]]
    rejected = Counter()
    allowed = allow([*labels, *longer, *spans[5:]], Data(min_response_words=max(told) + 1), {}, rejected)
    assert rejected == {"response too short": len(spans) - 5}
    assert {place.label for place in allowed} == {"0", "1", ""}
    assert len(allowed) == len(labels) + 5
    with pytest.raises(UsageError, match="response too short") as caught:
        allow(spans, Data(min_response_words=100), {})
    assert caught.value.hint == "lower data.min_response_words"


def test_weights_change_the_shares_and_zero_leaves_a_type_out():
    settings = Data(balance="types", weights={"a": 3.0, "c": 0.0})
    allowed = allow(places_of(a=500, b=500, c=500), settings, {})
    assert count_types(draw(allowed, 100, balance="types", weights=settings.weights)) == {"a": 75, "b": 25}


def test_weights_that_name_no_type_are_refused():
    with pytest.raises(UsageError, match="sentimant"):
        allow(places_of(a=9), Data(balance="types", weights={"sentimant": 2.0}), {})
    with pytest.raises(UsageError, match="balance"):
        allow(places_of(a=9), Data(weights={"a": 2.0}), {})


def test_sources_are_left_out_by_their_terms():
    terms = {"a": "non-commercial", "b": "not stated", "c": "open"}
    kept = allow(places_of(a=5, b=5, c=5), Data(exclude_license=("nc", "unstated")), terms)
    assert count_types(kept) == {"c": 5}
    with pytest.raises(UsageError, match="terms of a licence"):
        allow(places_of(a=5), Data(exclude_license=("gpl",)), terms)


def test_a_source_of_unknown_terms_is_left_out_with_the_excluded_and_both_are_counted():
    rejected = Counter()
    kept = allow(
        places_of(a=5, b=3, c=2), Data(exclude_license=("nc",)), {"a": "non-commercial", "c": "open"}, rejected
    )
    assert count_types(kept) == {"c": 2}
    assert rejected == {"licence non-commercial": 5, "licence not recorded": 3}
    assert count_types(allow(places_of(b=3), Data(), {})) == {"b": 3}
    with pytest.raises(UsageError, match="5 left out: licence not recorded") as caught:
        allow(places_of(a=5), Data(exclude_license=("nc",)), {})
    assert "manifest.json" in caught.value.hint


def test_pairs_are_read_from_where_they_were_drawn(pair_folder):
    folder = PairFolder(pair_folder)
    places = list(folder.places(0))
    assert len(places) == 120
    assert Counter(place.source for place in places) == {"quiz": 40, "news": 40, "tales": 40}
    for place, pair in zip(places[::7], folder.pairs(places[::7]), strict=True):
        assert f"{place.source} {place.row // 2}:" in pair.prompt
        assert place.task_type in pair.prompt


def test_pairs_that_their_own_checks_refuse_are_left_out_and_counted(tmp_path, small_model):
    folder = write_pairs(tmp_path, 4)
    path = folder / "data" / "tales.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["output"] = join_pair("{{context}}\nWho sat?", "a dog")
    rows[1]["output"] = "{{context}}\nWho sat?"
    rows[2]["input"] = rows[2]["input"].replace("extractive question answering", "a type of my own")
    pq.write_table(pa.Table.from_pylist(rows), path)
    encoder = Encoder(AutoTokenizer.from_pretrained(small_model()), end_tokens={2}, limits=Limits(512))
    for is_checked, count in ((True, 10), (False, 12)):
        pairs = PairFolder(folder, is_checked=is_checked)
        encoded = list(encoder.encode(pairs.pairs(list(pairs.places(0)))))
        assert len([example for example in encoded if example]) == count
    assert encoder.ledger.rejected == {"span not in passage": 1, "parse failure": 1}


def test_the_draw_depends_on_the_seed_alone(pair_folder):
    orders = [[place.order for place in PairFolder(pair_folder).places(seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_an_example_that_is_too_long_gives_its_turn_to_another_of_its_kind(small_model):
    class Source:
        def pairs(self, places):
            for place in places:
                yield Pair("x" * (10 if place.order % 3 else 1000), "y")

    encoder = Encoder(AutoTokenizer.from_pretrained(small_model()), end_tokens={2}, limits=Limits(64))
    recipe = LAPTOP.override({"max_steps": 5, "data.balance": "types"})
    drawn = draw_what_fits(Source(), places_of(a=200, b=100), recipe, encoder)
    assert count_types(drawn) == {"a": 20, "b": 20}
    assert encoder.ledger.rejected.total() > 0


def test_folders_without_pairs_are_refused(tmp_path):
    with pytest.raises(SourceError, match="no Parquet") as caught:
        PairFolder(tmp_path)
    assert "katsuo ctga build" in caught.value.hint
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match='no column "input"'):
        list(PairFolder(tmp_path).places(0))


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a", "completion": "b"}',
        '{"instruction": "a", "response": "b"}',
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},'
        ' {"role": "assistant", "content": "b"}]}',
    ],
)
def test_general_instructions_are_read_in_the_usual_shapes(tmp_path, line):
    (tmp_path / "general.jsonl").write_text(line + "\n\n")
    assert list(read_instructions(tmp_path)) == [("a", "b")]


def test_what_an_instruction_is_about_is_asked_with_it_and_once(tmp_path):
    rows = [
        {"instruction": "Translate.", "input": "The cat sleeps.", "output": "Le chat dort."},
        {"instruction": "Name a colour.", "input": "", "output": "Red"},
        {"instruction": "Who sleeps?", "context": "The cat sleeps.", "response": "the cat"},
        {"instruction": "The dog sleeps.\nWho sleeps?", "context": "The dog sleeps.", "response": "the dog"},
    ]
    (tmp_path / "general.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [asked for asked, _ in read_instructions(tmp_path)] == [
        "Translate.\n\nThe cat sleeps.",
        "Name a colour.",
        "Who sleeps?\n\nThe cat sleeps.",
        "The dog sleeps.\nWho sleeps?",
    ]


def test_general_instructions_of_no_known_shape_are_refused(tmp_path):
    (tmp_path / "general.jsonl").write_text('{"text": "a"}')
    with pytest.raises(SourceError, match="row 0"):
        list(read_instructions(tmp_path / "general.jsonl"))
    with pytest.raises(SourceError, match="no Parquet"):
        list(read_instructions(tmp_path / "nowhere"))
