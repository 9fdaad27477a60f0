"""The data set card says what the run says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from katsuo.config import recipe_from
from katsuo.export import export_run
from katsuo.export.card import _recipe, table, without_places
from katsuo.export.order import ExportOptions, Order, SourceTally
from katsuo.store import Run, create_run


@pytest.fixture(scope="module")
def card(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("card") / "out"
    export_run(run, "trl", out)
    return (out / "README.md").read_text(encoding="utf-8")


def rows_of(card: str, title: str) -> dict[str, list[str]]:
    lines = card.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ") and "---" not in line
    ]
    return {first: rest for first, *rest in cells[1:]}


def test_the_ledger_of_the_card_is_the_ledger_of_the_run(card: str, run: Run) -> None:
    summary, ledger = run.summary(), rows_of(card, "What became of every prompt")
    assert summary.rejected, "the run of this test must have lost something"
    assert ledger["prompts"] == [str(summary.prompts), str(summary.kept), str(sum(summary.rejected.values()))]
    assert ledger["documents"][0] == str(summary.documents)
    for reason, count in summary.rejected.items():
        assert ledger[f"… {reason}"][-1] == str(count)


def test_the_card_counts_task_types_and_files(card: str, run: Run) -> None:
    tasks = {name: int(count) for name, (count,) in rows_of(card, "Kept, by task type").items()}
    files = {name: int(count) for name, (count,) in rows_of(card, "Sources").items()}
    assert tasks == dict(run.summary().kept_by_task)
    assert sum(files.values()) == run.summary().kept
    assert "texts/00.txt" in files
    assert files["towers.csv"] == sum("#row=" in example.source for example in run.examples())


def test_the_card_holds_recipe_model_and_limits_but_no_path_of_this_machine(card: str, run: Run) -> None:
    assert "n: 2" in card.split("```yaml")[1]
    assert rows_of(card, "Model and versions")["model"] == ["fake"]
    assert "do not measure" in card
    assert str(run.path.parent) in run.recipe.documents[0]
    assert str(run.path.parent) not in card


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/home/someone/models/mine", "mine"),
        ("~/texts", "texts"),
        ("hf://owner/name:config", "hf://owner/name:config"),
        ("owner/model + /home/someone/adapter", "owner/model + adapter"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
        ("/", "/"),
        ("../clients/acme", "acme"),
        ("./mine/", "mine"),
        ("C:\\models\\mine", "mine"),
        ("s3://key:secret@bucket/clients/acme?token=1", "s3://bucket"),
        ("file:///home/someone/texts", "texts"),
        ("accounts/somebody/models/large", "accounts/somebody/models/large"),
    ],
)
def test_only_the_last_name_of_a_path_is_told(given: object, told: object) -> None:
    assert without_places(given) == told


def test_a_path_that_looks_like_a_name_on_the_hub_is_one_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clients" / "acme").mkdir(parents=True)
    assert without_places("clients/acme") == "clients/acme"
    monkeypatch.chdir(tmp_path)
    assert without_places("clients/acme") == "acme"


def test_the_recipe_of_a_card_holds_no_place(tmp_path: Path) -> None:
    settings = {
        "documents": ["../clients/acme", "clients/acme/letters", "https://me:secret@host.example/acme.txt?key=1"],
        "tasks": ["exqa", "clients/acme.yaml"],
        "held_out": "clients/held.jsonl",
        "include": ["**/letters/*.txt"],
        "adapter": "../clients/acme-adapter",
        "engine_options": {"base_url": "http://10.0.0.7:8000/clients/v1", "revision": "refs/pr/1"},
    }
    run = create_run(tmp_path / "own", recipe_from(settings), resume="never")
    written = _recipe(Order(run, tmp_path / "out", "own", ExportOptions()))
    told = yaml.safe_load(written.split("```yaml")[1].strip("`\n"))
    assert told["documents"] == ["acme", "letters", "https://host.example"]
    assert told["tasks"] == ["exqa", "acme.yaml"]
    assert (told["held_out"], told["adapter"], told["include"]) == ("held.jsonl", "acme-adapter", ["**/letters/*.txt"])
    assert told["engine_options"]["revision"] == "refs/pr/1"
    assert "base_url" not in told["engine_options"]


def tally(names: Iterable[str], shown: int) -> SourceTally:
    counted = SourceTally(shown)
    for name in names:
        counted.add(name)
    return counted


def test_many_files_are_counted_but_not_listed() -> None:
    counted = tally((f"{n // 3}.txt" for n in range(30)), shown=2)
    assert counted.first == {"0.txt": 3, "1.txt": 3}
    assert (counted.more_files, counted.more_examples) == (8, 24)


def test_a_cell_can_hold_what_a_table_cannot() -> None:
    assert table(("a", "b"), [("x|y\nz", 1000)]).splitlines()[2] == "| x\\|y z | 1,000 |"
