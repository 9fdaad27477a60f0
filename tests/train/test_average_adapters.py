"""`examples/average_adapters.py`: adapters that left one start become one, and others are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from katsuo.models.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS, revision_of

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def average(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import average_adapters

    yield average_adapters.average
    sys.modules.pop("average_adapters")


@pytest.fixture
def adapter(tmp_path):
    def make(name, *, value, start="local-1", rank=2):
        folder = tmp_path / name
        folder.mkdir()
        save_file({"layer.lora_A.weight": torch.full((rank, 3), value)}, folder / ADAPTER_WEIGHTS)
        told = {"r": rank, "lora_alpha": 4, "target_modules": ["q_proj"]}
        (folder / ADAPTER_CONFIG).write_text(json.dumps(told))
        source = {"source": "squad", "licence": "CC BY-SA 4.0", "terms": "open", "examples": 5}
        manifest = {"codec": "bonito-v1", "data": {"sources": [source]}, "examples": 5, "rejected": {"too long": 1}}
        manifest |= {"fitted": {"steps": 3, "seconds": 1.5}, "logits_change": value}
        manifest |= {"from": {"revision": start}} if start else {}
        (folder / "katsuo.json").write_text(json.dumps(manifest))
        return folder

    return make


def test_the_factors_are_averaged_and_the_manifest_names_all(average, adapter, tmp_path):
    average([adapter("a", value=1.0), adapter("b", value=2.0), adapter("c", value=6.0)], tmp_path / "mean")
    weights = load_file(tmp_path / "mean" / ADAPTER_WEIGHTS)
    assert torch.equal(weights["layer.lora_A.weight"], torch.full((2, 3), 3.0))
    assert (tmp_path / "mean" / ADAPTER_CONFIG).read_text() == (tmp_path / "a" / ADAPTER_CONFIG).read_text()
    manifest = json.loads((tmp_path / "mean" / "katsuo.json").read_text())
    assert [one["name"] for one in manifest["averaged"]] == ["a", "b", "c"]
    assert [one["logits_change"] for one in manifest["averaged"]] == [1.0, 2.0, 6.0]
    assert manifest["data"]["sources"][0]["examples"] == manifest["examples"] == 15
    assert manifest["fitted"] == {"steps": 9, "seconds": 4.5}
    assert manifest["codec"] == "bonito-v1"
    assert "logits_change" not in manifest


def test_the_start_itself_may_be_the_first(average, adapter, tmp_path):
    first = adapter("a", value=1.0)
    average([first, adapter("b", value=2.0, start=revision_of(first))], tmp_path / "mean")
    assert torch.equal(load_file(tmp_path / "mean" / ADAPTER_WEIGHTS)["layer.lora_A.weight"], torch.full((2, 3), 1.5))
    manifest = json.loads((tmp_path / "mean" / "katsuo.json").read_text())
    assert [one["name"] for one in manifest["averaged"]] == ["a", "b"]
    assert manifest["from"]["revision"] == revision_of(first)
    assert manifest["data"]["sources"][0]["examples"] == manifest["examples"] == 5
    assert manifest["fitted"]["steps"] == 3


@pytest.mark.parametrize("other", [{"start": "local-2"}, {"start": None}, {"rank": 4}])
def test_adapters_that_do_not_belong_together_are_refused(average, adapter, tmp_path, other):
    with pytest.raises(SystemExit, match="average those of one"):
        average([adapter("a", value=1.0), adapter("b", value=2.0, **other)], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_adapters_of_no_start_at_all_are_refused(average, adapter, tmp_path):
    with pytest.raises(SystemExit, match="or from none"):
        average([adapter(name, value=1.0, start=None) for name in "ab"], tmp_path / "mean")
