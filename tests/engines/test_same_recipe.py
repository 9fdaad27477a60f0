"""One recipe, and one word of it changed: every engine does the main job, or says why it is not here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import RunningServer, start_llama, write_tiny_gguf
from vllm_environment import environment_of

from katsuo import api
from katsuo.config import read_recipe
from katsuo.errors import MissingPackageError

RECIPE = """\
documents: [{documents}]
tasks: [exqa, nli]
engine: hf
model: {model}
codec: bonito-v1
sampling:
  max_new_tokens: {tokens}
engine_options:
  base_url: {address}
  context_tokens: {context}
  dtype: {dtype}
  vllm_arguments: [--enforce-eager]
cache: false
"""
ENGINES = ["hf", "llamacpp", "openai", pytest.param("vllm", marks=pytest.mark.slow)]
TEXT = (
    "The ferry to Ven leaves at nine from the harbour of Landskrona. It carries forty passengers and their bicycles."
    " The crossing takes half an hour, and the last boat home sails at seven in the evening."
)
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny model in both forms: safetensors, and beside them a GGUF file."""
    made = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(tiny_model("llama with wide heads"), made)
    gguf = write_tiny_gguf(made, tmp_path_factory.mktemp("gguf") / "tiny.gguf")
    shutil.copy(gguf, made / gguf.name)
    return made


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    pytest.importorskip("xllamacpp")
    running = start_llama(folder / "tiny.gguf", tmp_path_factory.mktemp("server") / "log.txt")
    yield running
    running.kill()


@pytest.fixture
def write(tmp_path: Path, server: RunningServer) -> Write:
    def write(**changes: object) -> Path:
        (tmp_path / "ferry.txt").write_text(TEXT)
        told = {
            "documents": tmp_path / "ferry.txt",
            "address": server.base_url,
            "tokens": 40,
            "context": 512,
            "dtype": "float32",
        }
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(**{**told, **changes}))
        return tmp_path / "recipe.yaml"

    return write


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_recipe_runs_with_one_word_changed(
    engine: str, write: Write, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    recipe = write(model=folder)
    recipe.write_text(recipe.read_text().replace("engine: hf", f"engine: {engine}"))
    run = generate(engine, recipe, tmp_path / "run", request)
    summary = run.summary()
    assert (summary.documents, summary.prompts) == (1, 2)
    assert summary.is_complete
    assert summary.new_tokens > 0
    assert "engine error" not in summary.rejected, [reject.detail for reject in run.rejects()]
    assert run.manifest["model"]["engine"] == engine
    assert read_recipe(run.path / "recipe.yaml").override({"engine": "hf"}) == read_recipe(recipe).override(
        {"engine": "hf"}
    )


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("engine", ["hf", "llamacpp", "vllm"])
def test_the_generator_that_comes_with_katsuo_keeps_examples_on_each(
    engine: str,
    write: Write,
    embedded_model: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KATSUO_CACHE", str(embedded_model.parent.parent))
    recipe = write(model="katsuo-135m", tokens=200, context=2048, dtype="auto")
    recipe.write_text(recipe.read_text().replace("engine: hf", f"engine: {engine}"))
    assert generate(engine, recipe, tmp_path / "run", request).summary().kept > 0


def generate(engine: str, recipe: Path, output: Path, request: pytest.FixtureRequest):
    try:
        if engine != "vllm":
            return api.generate(output=output, recipe=read_recipe(recipe))
        with environment_of(request.getfixturevalue("vllm_python")):
            return api.generate(output=output, recipe=read_recipe(recipe))
    except MissingPackageError as absent:
        pytest.skip(absent.message)
