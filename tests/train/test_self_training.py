"""`examples/self_training.py`: the generator's own pairs beside labelled ones, as a folder that a training reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from katsuo.records import Reason
from katsuo.tasks import find_task
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import parse_pair, read_bonito
from katsuo.tasks.task_type import Draft
from katsuo.train.read import PairFolder

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("turn", ["1", "2"])
def test_own_pairs_that_pass_every_check_stand_beside_labelled_ones(
    turn: str, tmp_path: Path, shared_data: Path, embedded_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KATSUO_CACHE", str(embedded_model.parents[1]))
    katsuo = [sys.executable, "-m", "katsuo"]
    labelled = tmp_path / "labelled"
    build = ["ctga", "build", "--data", str(shared_data / "data/p3"), "--sources", "squad,super_glue/boolq,glue/mrpc"]
    subprocess.run([*katsuo, *build, "--limit", "200", "-o", str(labelled)], check=True)
    script = [sys.executable, str(REPOSITORY / "examples/self_training.py"), "--share", "0.01", "--round", turn]
    places = ["--data", str(shared_data / "data/p3"), "--pairs", str(labelled), "-o", str(tmp_path / "own")]
    subprocess.run([*script, *places], check=True)
    subprocess.run([*script, *places], check=True)  # what is there is left alone

    folder = PairFolder(tmp_path / "own/pairs")
    rows = [row for path in folder.files for row in pq.read_table(path).to_pylist()]
    own = [row for row in rows if row["config"] == "self"]
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "own/passages").iterdir()]
    passages = {json.loads(line)["text"] for text in texts for line in text.strip().split("\n")}
    assert own
    for manifest in (tmp_path / "own/runs").glob("*/manifest.json"):
        assert json.loads(manifest.read_text(encoding="utf-8"))["sampling"]["grammar"] is (turn == "2")
    for row in own:
        name, passage = read_bonito(row["input"])
        pair = parse_pair(row["output"])
        assert passage in passages
        assert not isinstance(pair, Reason)
        assert first_failure(Draft(find_task(name), passage, pair.instruction, pair.response)) is None
    yes_no = [row["output"].rpartition("\n")[2].casefold() for row in rows if row["dataset"] == "super_glue"]
    assert 0.3 < sum(word in ("yes", "true") for word in yes_no) / len(yes_no) < 0.7
    assert {source["source"] for source in folder.sources()} >= {"squad", "katsuo-135m/self"}
