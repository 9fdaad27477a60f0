"""The published generators by name: codec and sampling without a flag, on tiny models of their architectures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import katsuo
from katsuo.config import cache_dir
from katsuo.models import KNOWN
from katsuo.workshop import settled

PUBLIC = [
    ("BatsResearch/bonito-v1", "bonito-v1", "mistral"),
    ("BatsResearch/Llama-3.1-8B-bonito-v1", "llama-3.1-8b-bonito-v1", "llama"),
]
PAPER = {"temperature": 0.5, "top_p": 0.95, "max_new_tokens": 256, "n": 1}
UNLIKE = {"temperature": 0.75, "top_p": 0.9, "max_new_tokens": 32}
"""Nobody's default, so that what comes from the table can be told from what does not."""


@pytest.fixture
def here(tiny_model: Callable[[str], Path]) -> Callable[[str, str], None]:
    def put(name: str, kind: str) -> None:
        shutil.copytree(tiny_model(kind), cache_dir() / "models" / name)

    return put


def told(run: katsuo.Run, names: Mapping[str, object]) -> dict[str, object]:
    return {name: run.manifest["sampling"][name] for name in names}


@pytest.mark.parametrize(("hub", "name", "kind"), PUBLIC)
def test_a_published_generator_needs_its_name_alone(hub: str, name: str, kind: str, here, tmp_path: Path) -> None:
    here(name, kind)
    (tmp_path / "a.txt").write_text("The ferry to Ven leaves at nine.")
    run = katsuo.generate(tmp_path / "a.txt", ["exqa"], tmp_path / "run", engine="hf", model=hub, cache=False)
    assert run.manifest["codec"] == "bonito-v1"
    assert told(run, PAPER) == PAPER
    assert run.summary().prompts == 1


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
