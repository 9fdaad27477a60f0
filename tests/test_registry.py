from __future__ import annotations

import pytest

from katsuo.errors import MissingPackageError, UnknownNameError
from katsuo.registry import Door, Registry


def test_a_registry_imports_the_thing_behind_a_name() -> None:
    registry: Registry[type] = Registry("engines", {"fake": Door("katsuo.engines.fake:FakeEngine")})
    assert registry.get("fake").__name__ == "FakeEngine"


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    registry: Registry[type] = Registry("engines", {"fake": Door("katsuo.engines.fake:FakeEngine")})
    with pytest.raises(UnknownNameError, match='unknown engine "fkae"\nhint: did you mean "fake"'):
        registry.get("fkae")


def test_a_missing_package_says_which_extra_brings_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "needy_engine.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[type] = Registry("engines", {"needy": Door("needy_engine:Needy", extra="hf")})
    with pytest.raises(MissingPackageError, match=r"a_package_that_nobody_has.*\nhint: pip install 'katsuo\[hf\]'"):
        registry.get("needy")


def test_a_missing_module_of_our_own_is_not_taken_for_a_missing_package() -> None:
    registry: Registry[type] = Registry("engines", {"lost": Door("katsuo.engines.lost:Lost", extra="hf")})
    with pytest.raises(ModuleNotFoundError, match=r"katsuo\.engines\.lost"):
        registry.get("lost")
