"""`katsuo doctor` knows every extra that can be installed."""

from __future__ import annotations

import re
from pathlib import Path

from katsuo.cli.doctor import _EXTRAS, examine

PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


def test_every_extra_but_those_of_developers_is_looked_for() -> None:
    extras = PYPROJECT.read_text(encoding="utf-8").split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE)) - {"dev", "bench"} <= set(_EXTRAS)
    packages = examine()["packages"]
    assert isinstance(packages, dict)
    assert {"ray", "s3fs", "vllm"} <= set(packages)
