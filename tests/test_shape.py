"""The numbers of the house, held by a test so that taste does not need a reviewer."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import katsuo
from katsuo import errors

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "katsuo").rglob("*.py"))
TABLES = {"catalog.py", "suites.py", "known.py"}
MODULE_LINES, FUNCTION_LINES, TEST_LINES, PARAMETERS, FOLDER_FILES = 500, 60, 600, 10, 15
ENGINES = ("torch", "transformers", "peft", "llguidance", "datasets", "pyarrow", "kreuzberg", "pydantic", "ray", "vllm")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_and_no_function_grows_past_its_size(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name not in TABLES:
        assert text.count("\n") <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            is_command = "cli" in path.parts  # a command's flags are its parameters
            assert lines <= FUNCTION_LINES or is_command, f"{node.name} has {lines} lines"
            free = len(node.args.posonlyargs) + len(node.args.args)
            assert free <= PARAMETERS or is_command, f"{node.name} takes {free} parameters by position"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name_of)
def test_no_test_file_grows_past_its_size(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= TEST_LINES


def test_no_folder_holds_too_many_files() -> None:
    for folder in {path.parent for path in SOURCES}:
        assert len(list(folder.glob("*.py"))) <= FOLDER_FILES, folder


def test_no_module_is_a_drawer_for_everything() -> None:
    assert not {"utils.py", "helpers.py", "common.py", "misc.py"} & {path.name for path in SOURCES}


def test_the_front_door_offers_what_it_lists() -> None:
    assert sorted(katsuo.__all__) == katsuo.__all__
    for name in katsuo.__all__:
        assert getattr(katsuo, name).__module__.startswith("katsuo.")


def test_importing_katsuo_and_asking_for_help_load_no_engine() -> None:
    code = (
        "import sys, katsuo; from katsuo.cli.main import build; from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(build(['--help']), ['--help']).exit_code == 0\n"
        f"loaded = [name for name in {ENGINES!r} if name in sys.modules]\n"
        "print(loaded)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"pydantic"}  # newer releases of the command-line library bring it along
    assert set(ast.literal_eval(result.stdout)) <= allowed


def test_every_error_stands_in_the_tree_and_takes_a_hint() -> None:
    tree = errors.__doc__ or ""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert re.search(rf"\b{name}\b", tree), f"{name} is missing from the tree"
        assert "hint" in inspect.signature(kind).parameters


def test_every_error_that_is_raised_gives_a_hint() -> None:
    names = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                assert any(keyword.arg == "hint" for keyword in node.keywords), f"{name_of(path)}:{node.lineno}"


def test_the_readme_maps_every_module_and_package() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    house = ROOT / "src" / "katsuo"
    packages = [path.parent.name for path in house.glob("*/__init__.py")]
    modules = [path.stem for path in house.glob("*.py") if not path.stem.startswith("__")]
    for name in (*packages, *modules):
        assert re.search(rf"── {name}\s", readme), f"{name} is missing from the README's map"


def test_the_repository_names_no_machine_and_no_package_host() -> None:
    told = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    forbidden = re.compile(r"/work/|/opt/(wheels|pypi)|pypi\.org|pythonhosted|download\.pytorch")
    for name in told.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".txt", "") and path != Path(__file__) and path.is_file():
            found = forbidden.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{name}: {found}"
