"""What a recipe names and what is not there is told before the first stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridges import recipe, write_rows

from katsuo.errors import KatsuoError, MissingPackageError
from katsuo.experiment import rehearse as rehearsing
from katsuo.experiment.folder import look_at
from katsuo.experiment.rehearse import rehearse
from katsuo.experiment.settings import experiment_from


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": "absent.jsonl"}, "absent.jsonl"),
        ({"documents": ["absent"]}, "absent"),
        ({"include": ["*.pdf"]}, "0 of its files match"),
        ({"columns": {"question": "asked"}}, 'no column "asked"'),
        ({"labels": ["ja", "nein"]}, "not among: ja, nein"),
        ({"labelled": "absent.jsonl"}, "absent.jsonl"),
        ({"document_column": "source"}, 'no column "source"'),
    ],
)
def test_what_a_set_names_has_to_be_there(
    bridges: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    told = recipe(*bridges, "model")
    rehearse(look_at(tmp_path / "out", experiment_from(told)))
    told["sets"]["second"] = {**told["sets"]["bridges"], **changes}
    with pytest.raises(KatsuoError, match=says):
        rehearse(look_at(tmp_path / "out", experiment_from(told)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"evaluate": {"templates": ["belwo"]}}, 'unknown template "belwo"'),
        ({"forgetting": {"suites": ["absent.yaml"]}}, r"absent\.yaml"),
    ],
)
def test_templates_and_general_suites_have_to_be_there(
    bridges: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(KatsuoError, match=says):
        rehearse(look_at(tmp_path / "out", experiment_from(recipe(*bridges, "model", **settings))))


def test_packages_have_to_be_there(bridges: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rehearsing._PACKAGES, "report", ("no_such_package_to_draw_with",))
    with pytest.raises(MissingPackageError, match=r"no_such_package.*\nhint: pip install 'katsuo\[report\]'"):
        rehearse(look_at(tmp_path / "out", experiment_from(recipe(*bridges, "model"))))


def test_what_was_split_is_not_read_again(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    folder = look_at(tmp_path / "out", experiment_from(recipe(*bridges, "model")))
    bridges[1].unlink()
    with pytest.raises(KatsuoError, match="there is no"):
        rehearse(folder)
    write_rows(bridges[1])
    folder.write_marker("bridges/split", {"seconds": 1.0})
    bridges[1].unlink()
    rehearse(folder)
