"""A real run by the engine without a model, and a hub on this machine to push to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from local_hub import LocalHub

from katsuo.api import generate
from katsuo.config import recipe_from
from katsuo.records import Example
from katsuo.store import Run, create_run

TEXTS = [
    "The bridge opened in 193{n}. It crosses the river Po near Turin. The steel came from a mill in town {n}.",
    "Zürich — „{n}“: die Brücke wurde 1882 eröffnet, 🚂 und der Zug C:\\new\\{n} fuhr am selben Tag nach Basel ab.",
    'He said "{n}" and left.\u2028A new line began here, and another one\x85after it. The end came at noon in Rome.',
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("made")
    (folder / "texts").mkdir()
    for number in range(12):
        text = TEXTS[number % len(TEXTS)].format(n=number)
        (folder / "texts" / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    rows = "\n".join(
        f'"Row {n} tells of a tower that was built in 18{n} by the sea near Genoa."' for n in range(10, 16)
    )
    (folder / "towers.csv").write_text(f"text\n{rows}\n", encoding="utf-8")
    settings = {"engine": "fake", "sampling__n": 2, "shard_size": 16}
    return generate([folder / "texts", folder / "towers.csv"], ["ynqa", "exqa"], folder / "bridges", **settings)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[Sequence[Example]], Run]:
    """Write examples of a test's own into a run, as the store does."""

    def make(examples: Sequence[Example], *, counted: int | None = None) -> Run:
        run = create_run(tmp_path / "own", recipe_from({"documents": ("a.txt",), "tasks": ("exqa",)}), resume="never")
        kept = len(examples) if counted is None else counted
        run.write_passages(0, [], [])
        run.write_documents_done({"fingerprint": "", "documents": 1, "passages": 1, "prompts": kept, "seconds": 0.0})
        counts = {
            "kept_by_task": {"extractive question answering": kept},
            "rejected": {},
            "new_tokens": 1,
            "seconds": 0.0,
        }
        run.write_shard_done(0, examples, [], counts)
        return run

    return make


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub that the next push goes to, with a token at hand."""
    with LocalHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server
        server.shutdown()
        thread.join()
