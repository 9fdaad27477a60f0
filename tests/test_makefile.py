"""`make bench` gives scripts the flags that they have, and says which it leaves out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS_OF_OTHERS = {"engine_sides.py", "vllm_bare.py"}


def test_every_benchmark_is_run_with_flags_that_it_has_or_is_named_as_left_out() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"benchmarks/(\w+\.py)(.*)", makefile)
    left_out = set(re.findall(r"\w+\.py", makefile[makefile.index("# Left out:") : makefile.index("\nbench: setup")]))
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert {name for name, _ in commands} | left_out | PARTS_OF_OTHERS >= scripts
    for name, given in commands:
        text = (ROOT / "benchmarks" / name).read_text(encoding="utf-8")
        for flag in re.findall(r"--[\w-]+", given):
            assert f'"{flag}"' in text, f"{name} has no {flag}"
