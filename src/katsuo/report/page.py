"""A report as one HTML page that needs nothing else: no script, no network, figures inside."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from katsuo.report.figures import draw
from katsuo.report.parts import Figure, Section
from katsuo.report.read import Story


def as_page(story: Story, sections: Sequence[Section]) -> str:
    """Give the whole page."""
    text = (resources.files(__package__) / "page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn: dict[int, Markup] = {}
    for section in sections:
        for figure in section.figures:
            drawn[id(figure)] = Markup(draw(figure.kind, figure.values, name=f"f{len(drawn)}"))  # noqa: S704 - drawn here

    def svg(figure: Figure) -> Markup:
        return drawn[id(figure)]

    warnings = story.results.get("warnings", [])
    verdict = story.results.get("verdict", "").removesuffix("; " + "; ".join(warnings))
    return environment.from_string(text).render(
        title=story.title, verdict=verdict, warnings=warnings, sections=sections, svg=svg
    )
