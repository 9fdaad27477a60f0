"""What stands in a report, in order."""

from __future__ import annotations

from katsuo.report.effort import tell_cost, tell_learning
from katsuo.report.examples import tell_run
from katsuo.report.held_out import tell_forgetting, tell_rest, tell_rows
from katsuo.report.parts import Section
from katsuo.report.read import Story
from katsuo.report.scores import tell_scores

_OPEN_RUNS = 2


def sections_of(story: Story) -> list[Section]:
    """Give the sections of a report; one that has nothing to tell is not there."""
    found: list[Section] = []
    if story.results:
        for tell in (tell_scores, tell_rest, tell_rows, tell_forgetting):
            found += list(tell(story.results))
    if story.trainings:
        found.append(tell_learning(story.trainings))
    for place, run in enumerate(story.runs):
        # With many runs the page would be figures of examples above all.
        is_folded = place >= _OPEN_RUNS
        found += list(tell_run(run, story.bins, is_alone=len(story.runs) == 1, is_folded=is_folded))
    if story.results:
        found += list(tell_cost(story.results))
    found.append(Section("Recipe", code=story.recipe, is_folded=True))
    return [one for one in found if one.words or one.tables or one.figures or one.examples or one.code]
