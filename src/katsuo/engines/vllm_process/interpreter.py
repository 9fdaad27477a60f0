"""Which Python runs vLLM: katsuo's own, or one of another environment, since vLLM pins what it stands on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from katsuo.config import vllm_python
from katsuo.errors import MissingPackageError, RecipeError

_PROBE = "import importlib.util as u, sys; sys.exit(0 if u.find_spec('vllm') else 3)"
_ABSENT = 3
_PROBE_S = 60
HINT = (
    "pip install 'katsuo[vllm]', or name the Python of an environment that has vllm: "
    "KATSUO_VLLM_PYTHON=/path/to/bin/python"
)


def find_python(named: str | None) -> str:
    """
    Give the interpreter that has vLLM: `named`, else `KATSUO_VLLM_PYTHON`, else this one.

    Raise `RecipeError` for a path that is no interpreter and `MissingPackageError` for one without vLLM.
    """
    asked = named or vllm_python()
    python = str(Path(asked).expanduser()) if asked else sys.executable
    # Found, not imported: that takes seconds. From a folder of its own: one called vllm must not be taken for it.
    with tempfile.TemporaryDirectory() as empty:
        try:
            status = subprocess.run(
                [python, "-c", _PROBE], cwd=empty, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_S
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _no_interpreter(python) from error
    if status == _ABSENT:
        raise MissingPackageError(f'the interpreter "{python}" has no package "vllm"', hint=HINT)
    if status:
        raise _no_interpreter(python)
    return python


def _no_interpreter(python: str) -> RecipeError:
    return RecipeError(
        f'"{python}" does not run as a Python interpreter',
        hint="give engine_options.python (or KATSUO_VLLM_PYTHON) as /path/to/environment/bin/python",
    )
