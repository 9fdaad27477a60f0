"""Choose a source's prompt templates, and turn each into a meta-template."""

from __future__ import annotations

import re

from katsuo.ctga.catalog import Source
from katsuo.errors import TemplateError
from katsuo.templates.library import RELEASE, Template, TemplateLibrary, parse_templates
from katsuo.templates.marks import HERE, PIPE, SEPARATOR, expression_pattern, with_cut


def find_templates(source: Source, library: TemplateLibrary) -> tuple[Template, ...]:
    """Give the templates of `source` that print its context and have a task type, in the order of their types."""
    if source.templates:
        return tuple(template for template in source.templates if prints_context(template, source))
    if not source.types:
        return ()
    text = library.text(source.dataset, source.config)
    if text is None:
        raise TemplateError(
            f'there is no templates.yaml for "{source.name}"',
            hint="check --templates, or leave the source out with --sources",
        )
    found = {template.name: template for template in parse_templates(text, where=source.name)}
    if missing := [name for name in source.types if name not in found]:
        raise TemplateError(
            f'"{source.name}" has no template called "{missing[0]}"',
            hint=f"the catalogue is made for promptsource {RELEASE}: leave --templates out",
        )
    return tuple(found[name] for name in source.types if prints_context(found[name], source))


def context_pattern(source: Source) -> re.Pattern[str]:
    """Match the source's context expression in a template; white space inside `{{ }}` may differ."""
    return expression_pattern(source.context, is_exact=source.match == "exact")


def prints_context(template: Template, source: Source) -> bool:
    """Tell whether `template` prints the unannotated text of `source`."""
    return bool(context_pattern(source).search(template.jinja))


def meta_template(template: Template, source: Source) -> str:
    """
    Give the Jinja source of the meta-template: the passage becomes a placeholder, every other print is cut.

    The cut is appended to what is printed, so in `{{ a ~ b }}` it binds to `b` alone, as in promptsource's
    `apply(truncate=True)` (paper, section on CTGA: "remix").
    """
    pieces = context_pattern(source).split(template.jinja.replace(SEPARATOR, PIPE))
    return HERE.join(with_cut(piece) for piece in pieces)
