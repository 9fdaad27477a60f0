"""What has a meaning inside a template, and what stands for it while the template is rendered."""

from __future__ import annotations

import re

SEPARATOR = "|||"
"""Parts the instruction from the response in a template."""
PIPE, HERE = "\ufdd0|\ufdd1", "\ufdd0@\ufdd1"
"""What stands for the separator and for the passage while a template is rendered. Unicode keeps these code points out
of exchanged text, so no value of a row can be taken for one of them."""
CUT = "katsuo_cut"
"""The filter that every printed variable passes: cut to 2,048 characters."""
_SPACED = {"{{": r"\{\{\s*", "}}": r"\s*\}\}"}


def expression_pattern(expression: str, *, is_exact: bool = False) -> re.Pattern[str]:
    """Match a printed expression in a template; white space inside `{{ }}` may differ unless it has to be exact."""
    if is_exact:
        return re.compile(re.escape(expression))
    parts = re.split(r"(\{\{\s*|\s*\}\})", expression)
    return re.compile("".join(_SPACED.get(part.strip()) or re.escape(part) for part in parts))


def with_cut(jinja: str) -> str:
    """Let every printed variable pass the cut."""
    return jinja.replace("}}", f" | {CUT} }}}}")
