from __future__ import annotations

import json
from pathlib import Path

import pytest

from katsuo.errors import ModelError, UsageError
from katsuo.evaluate.settings import make_settings
from katsuo.evaluate.system import System, _style, find_system


def make_adapter(folder: Path, *, named: str | None = None, **manifest) -> str:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named}))
    if manifest:
        (folder / "katsuo.json").write_text(json.dumps(manifest))
    return str(folder)


def make_model(folder: Path, *, is_chat: bool, **manifest) -> str:
    folder.mkdir(parents=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "…"} if is_chat else {}))
    (folder / "katsuo.json").write_text(json.dumps(manifest))
    return str(folder)


def test_an_adapter_brings_the_model_that_it_was_trained_on(tmp_path):
    adapter = make_adapter(tmp_path / "a", named="owner/other", base_model="owner/model")
    assert find_system(adapter) == System("owner/model", adapter)
    assert find_system(adapter).name == "a"
    assert find_system(make_adapter(tmp_path / "b", named="owner/other")).model == "owner/other"
    assert find_system("smollm2-135m-instruct") == System("smollm2-135m-instruct")
    with pytest.raises(ModelError, match="does not name its model"):
        find_system(make_adapter(tmp_path / "c"))


def test_an_adapter_of_another_base_is_refused(tmp_path):
    adapter = make_adapter(tmp_path / "a", base_model="HuggingFaceTB/SmolLM2-135M-Instruct", base_revision="r1")
    assert find_system(adapter, base="smollm2-135m-instruct").model == "smollm2-135m-instruct"
    same = make_model(tmp_path / "same", is_chat=True, revision="r1")
    assert find_system(adapter, base=same).model == same
    other = make_model(tmp_path / "other", is_chat=True, revision="r2")
    with pytest.raises(ModelError, match='trained on "HuggingFaceTB/SmolLM2-135M-Instruct", not on'):
        find_system(adapter, base=other)


def test_the_style_is_that_of_the_revision(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshots = tmp_path / "models--owner--model" / "snapshots"
    commits = {name: name * 40 for name in "ab"}
    make_model(snapshots / commits["a"], is_chat=False)
    make_model(snapshots / commits["b"], is_chat=True)
    for name, style in zip("ab", ("input-output", "chat"), strict=True):
        settings = make_settings({"engine_options.revision": commits[name]})
        assert _style(System("owner/model"), settings) == (style, None)
    served = make_settings({"engine": "openai", "engine_options.revision": "2"})
    assert _style(System(str(snapshots / commits["b"])), served) == ("chat", None)


def test_a_system_is_asked_the_way_it_was_trained_unless_told_otherwise(tmp_path):
    chat, plain = make_model(tmp_path / "c", is_chat=True), make_model(tmp_path / "p", is_chat=False)
    auto = make_settings({})
    assert _style(System(chat), auto) == ("chat", None)
    assert _style(System(plain), auto) == ("input-output", None)
    told = {"data": {"style": "template"}, "recipe": {"prompt_template": "Q: {instruction} A:"}}
    adapter = make_adapter(tmp_path / "a", base_model=chat, **told)
    assert _style(find_system(adapter), auto) == ("template", "Q: {instruction} A:")
    assert _style(find_system(adapter), make_settings({"style": "chat"})) == ("chat", None)
    assert _style(System(chat), make_settings({"prompt_template": "{instruction}?"})) == ("template", "{instruction}?")
    with pytest.raises(UsageError, match="no chat template"):
        _style(System(plain), make_settings({"style": "chat"}))
