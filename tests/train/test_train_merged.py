"""A merged model says what it was trained on, and goes on saying it; a disk that fills up says so."""

from __future__ import annotations

import json
import resource

import pytest

from katsuo.errors import StoreError
from katsuo.train.generator import train_generator
from katsuo.train.recipes import LAPTOP
from katsuo.train.weights.merge import merge
from katsuo.train.weights.start import sources_of

pytestmark = pytest.mark.filterwarnings("ignore:.*was renamed from:UserWarning")

SMALL = LAPTOP.override(
    {"dtype": "float32", "device": "cpu", "max_steps": 1, "batch_size": 2, "micro_batch_size": 2, "data.held_out": 0}
)


def train(pairs, model, output, **changes):
    train_generator(pairs, str(model), output, SMALL.override(changes), start=None, on_progress=lambda _: None)
    return output


@pytest.fixture(scope="module")
def merged(pair_folder, small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged")
    adapter = train(pair_folder, small_model(), folder / "adapter", **{"data.weights": {}})
    return merge(str(adapter), folder / "whole", model=str(small_model()))


def test_a_merged_model_names_the_sources_of_its_adapter(merged):
    named = {source["source"] for source in sources_of(merged)}
    assert named
    assert named <= {"quiz", "news", "tales"}
    card = (merged / "README.md").read_text()
    assert all(f"| {name} |" in card for name in named)
    assert ("non-commercial use only" in card) == ("news" in named)


def test_what_goes_on_from_a_merged_model_names_its_sources_too(merged, pair_folder, tmp_path):
    further = train(pair_folder, merged, tmp_path / "more", **{"data.exclude_license": ["nc", "unstated"]})
    own = {source["source"] for source in json.loads((further / "katsuo.json").read_text())["data"]["sources"]}
    assert own == {"quiz"}
    card = (further / "README.md").read_text()
    assert all(f"| {source['source']} |" in card for source in sources_of(merged))
    again = merge(str(further), tmp_path / "whole", model=str(merged))
    assert {source["source"] for source in sources_of(again)} == own | {one["source"] for one in sources_of(merged)}


def test_a_disk_that_is_full_while_merging_is_told_and_leaves_nothing(pair_folder, small_model, tmp_path):
    adapter = train(pair_folder, small_model(), tmp_path / "adapter")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*\nhint: free some space"):
            merge(str(adapter), tmp_path / "whole", model=str(small_model()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "whole").exists()
