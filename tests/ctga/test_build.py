from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from katsuo.ctga.build import build
from katsuo.ctga.settings import BuildSettings, make_settings
from katsuo.ctga.shards import draw_rows
from katsuo.errors import RecipeError, RunChangedError, RunExistsError, SourceError, UsageError
from katsuo.records import Reason


def settings(pack: Path, **values) -> BuildSettings:
    return BuildSettings(pack=str(pack), **{"rows_per_shard": 7, "per_row": 2, **values})


def pairs(out: Path) -> list[dict]:
    rows = [row for path in (out / "data").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: (row["dataset"], row["row"], row["template"]))


def lost(out: Path) -> list[dict]:
    return [row for path in (out / "rejects").glob("*.parquet") for row in pq.read_table(path).to_pylist()]


def test_the_ledger_adds_up_and_agrees_with_the_files(pack, tmp_path):
    summary = build(settings(pack, per_row=0), tmp_path / "out")
    assert summary.drawn == 90
    assert summary.by_template == {("animals", "ask"): 30, ("animals", "shout"): 30, ("animals", "sometimes"): 15}
    assert summary.lost == {Reason.EMPTY_PART.value: 15}
    assert summary.by_type["rhyme finding"] == 15
    assert len(pairs(tmp_path / "out")) == summary.pairs == 75
    assert len(lost(tmp_path / "out")) == 15
    assert not summary.is_short


def test_the_columns_are_those_of_the_data_set_and_datasets_loads_them(pack, tmp_path):
    build(settings(pack), tmp_path / "out")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == [
        "input", "output", "task_type", "dataset", "config", "template", "row", "context", "task_input", "task_output",
    ]  # fmt: skip
    assert len(loaded) == len(pairs(tmp_path / "out"))


def test_the_pairs_do_not_depend_on_workers_or_shards(pack, tmp_path):
    build(settings(pack), tmp_path / "one")
    build(settings(pack, workers=2, rows_per_shard=3), tmp_path / "two")
    assert pairs(tmp_path / "one") == pairs(tmp_path / "two")


def test_another_seed_draws_other_templates(pack, tmp_path):
    build(settings(pack, per_row=1), tmp_path / "one")
    build(settings(pack, per_row=1, seed=1), tmp_path / "two")
    assert pairs(tmp_path / "one") != pairs(tmp_path / "two")


def test_a_shard_without_its_marker_is_done_again_and_no_other(pack, tmp_path):
    out = tmp_path / "out"
    build(settings(pack), out)
    before = pairs(out)
    (out / "manifest.json").unlink()
    (out / "done" / "animals-00001.json").unlink()
    (out / "data" / "animals-00001.parquet").write_bytes(b"half")
    done = []
    build(settings(pack), out, progress=lambda number, of, marker: done.append((number, of)))
    assert done == [(5, 5)]
    assert pairs(out) == before


def test_a_killed_build_resumed_equals_an_uninterrupted_one(pack, tmp_path):
    rows = ({"text": f"The cat number {n} sleeps.", "who": f"cat {n}", "number": n} for n in range(9000))
    (pack / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom katsuo.ctga.build import build\n"
        "from katsuo.ctga.settings import BuildSettings\n"
        "if __name__ == '__main__':\n"
        "    build(BuildSettings(pack=sys.argv[1], per_row=2, rows_per_shard=500), Path(sys.argv[2]))\n"
    )
    build(settings(pack, rows_per_shard=500), tmp_path / "whole")
    for _ in range(3):
        process = subprocess.Popen([sys.executable, str(script), str(pack), str(tmp_path / "killed")])
        done = tmp_path / "killed" / "done"
        before = len(list(done.glob("*"))) if done.exists() else 0
        while process.poll() is None and not (done.exists() and len(list(done.glob("*.json"))) > before):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    build(settings(pack, rows_per_shard=500), tmp_path / "killed")
    assert pairs(tmp_path / "killed") == pairs(tmp_path / "whole")


def test_a_changed_recipe_is_refused_with_the_difference(pack, tmp_path):
    build(settings(pack), tmp_path / "out")
    with pytest.raises(RunChangedError, match="per_row: 2 → 1"):
        build(settings(pack, per_row=1), tmp_path / "out")
    text = (pack / "ctga.yaml").read_text()
    (pack / "ctga.yaml").write_text(text.replace("Who is it about?", "Who is meant?"))
    with pytest.raises(RunChangedError, match=r"source\.animals"):
        build(settings(pack), tmp_path / "out")


def test_a_folder_that_holds_something_else_is_left_alone(pack, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(RunExistsError):
        build(settings(pack), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_of_too_many_rows_the_same_are_drawn_whatever_the_shards(pack, tmp_path):
    build(settings(pack, limit=10, per_row=0), tmp_path / "one")
    build(settings(pack, limit=10, per_row=0, rows_per_shard=4), tmp_path / "two")
    rows = {pair["row"] for pair in pairs(tmp_path / "one")}
    assert len(rows) == 10
    assert rows != set(range(10))
    assert pairs(tmp_path / "one") == pairs(tmp_path / "two")


def test_fewer_drawn_rows_are_part_of_more(pack):
    from katsuo.ctga.build import make_plan

    (recipe,) = make_plan(settings(pack)).recipes
    assert draw_rows(recipe, 30, 30) is None
    assert set(draw_rows(recipe, 30, 5) or ()) < set(draw_rows(recipe, 30, 9) or ())


def test_balanced_types_hold_at_most_the_mean_and_nothing_is_lost_silently(pack, tmp_path):
    summary = build(settings(pack, per_row=0, balance="types"), tmp_path / "out")
    assert summary.by_type == {"extractive question answering": 25, "text generation": 25, "rhyme finding": 15}
    assert summary.lost == {Reason.EMPTY_PART.value: 15, Reason.OVER_CAP.value: 10}
    assert len(pairs(tmp_path / "out")) == 65
    assert len(lost(tmp_path / "out")) == 25
    assert not (tmp_path / "out" / "drawn").exists()


def test_caps_hold_for_one_type_or_for_all_and_do_not_depend_on_shards(pack, tmp_path):
    caps = {"text generation": 4, "*": 9}
    summary = build(settings(pack, per_row=0, caps=caps), tmp_path / "one")
    assert summary.by_type == {"extractive question answering": 9, "rhyme finding": 9, "text generation": 4}
    build(settings(pack, per_row=0, caps=caps, rows_per_shard=30), tmp_path / "two")
    assert pairs(tmp_path / "one") == pairs(tmp_path / "two")


def test_a_template_that_fails_is_counted_by_name_and_the_rest_is_built(pack, tmp_path):
    text = (pack / "ctga.yaml").read_text()
    bad = '  - name: bad\n    task_type: qa\n    jinja: "{{ text }} {{ who.__class__ }} ||| a"\n'
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    endless = (
        '  - name: endless\n    task_type: qa\n    jinja: "{{ text }} {% if number == 3 %}LOOP{% endif %} ||| a"\n'
    )
    (pack / "ctga.yaml").write_text(text + bad + endless.replace("LOOP", loop))
    summary = build(settings(pack, per_row=0, time_limit_s=0.3), tmp_path / "out")
    assert summary.lost_by_template[Reason.FORBIDDEN.value, "animals", "bad"] == 30
    assert summary.lost_by_template[Reason.TIME_LIMIT.value, "animals", "endless"] == 1
    assert summary.by_template["animals", "endless"] == 29
    assert summary.by_template["animals", "ask"] == 30
    assert summary.is_short


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of one process")
def test_a_template_that_fills_the_memory_is_rejected_and_the_rest_is_built(pack, tmp_path):
    double = "{% set s = namespace(x='ab') %}{% for n in range(99) %}{% set s.x = s.x ~ s.x %}{% endfor %}"
    text = (pack / "ctga.yaml").read_text()
    (pack / "ctga.yaml").write_text(
        text + f'  - name: bad\n    task_type: qa\n    jinja: "{double}{{{{ text }}}} ||| a"\n'
    )
    summary = build(settings(pack, per_row=0, limit=2), tmp_path / "out")
    ended = (Reason.OUTPUT_LIMIT.value, Reason.TIME_LIMIT.value)  # whichever comes first on this machine
    assert sum(summary.lost_by_template.get((reason, "animals", "bad"), 0) for reason in ended) == 2
    assert summary.by_template["animals", "ask"] == 2


@pytest.mark.parametrize("per_row", ["0", "-1", "some"])
def test_an_impossible_number_of_templates_is_wrong_use(per_row):
    with pytest.raises(UsageError, match="templates per row"):
        make_settings({"per_row": per_row})


def test_settings_are_taken_as_people_write_them():
    made = make_settings({"per_row": "all", "caps": ["500", "wsd=20", "my own=3"]})
    assert made.per_row == 0
    assert made.caps == {"*": 500, "word sense disambiguation": 20, "my own": 3}
    with pytest.raises(UsageError, match="no cap"):
        make_settings({"caps": ["many"]})
    with pytest.raises(RecipeError, match="balance"):
        make_settings({"balance": "evenly"})


def test_sources_that_the_data_folder_lacks_are_told(shared_data, tmp_path, real_cache):
    data = str(shared_data / "data" / "p3")
    summary = build(BuildSettings(data=data, sources=("super_glue/copa", "quartz")), tmp_path / "out")
    assert summary.by_source["super_glue/copa"] > 300
    with pytest.raises(SourceError, match="samsum"):
        build(BuildSettings(data=data, sources=("samsum",)), tmp_path / "none")
    with pytest.raises(SourceError, match="none of the sources"):
        build(BuildSettings(data=str(tmp_path)), tmp_path / "none")


@pytest.mark.slow
def test_all_sources_of_the_shared_data_are_built(shared_data, tmp_path, real_cache):
    summary = build(BuildSettings(data=str(shared_data / "data" / "p3"), workers=2), tmp_path / "out")
    assert len(summary.by_source) == 36
    assert summary.absent == ("gigaword", "multi_news", "samsum")
    assert summary.drawn == 103_161
    assert set(summary.lost) == {Reason.EMPTY_PART.value}
