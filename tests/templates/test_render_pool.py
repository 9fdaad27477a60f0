from __future__ import annotations

import os

import pytest

from katsuo.errors import SourceError, TemplateError
from katsuo.templates.sandbox.pool import NOWHERE, Pool


def count_rows(job, skip, beat):
    """Die at row 3 of job "bad", as often as it is asked to render it."""
    done = []
    for row in range(5):
        if (row, 0) in skip:
            continue
        beat[0], beat[1] = row, 0
        if job == "bad" and row == 3:
            os._exit(9)
        done.append(row)
    beat[0], beat[1] = NOWHERE
    return {"done": done}


def die_at_once(job, skip, beat):
    os._exit(9)


def refuse(job, skip, beat):
    raise SourceError(f"no {job}", hint="another")


def test_a_place_where_workers_die_is_left_out_and_all_else_is_done():
    found = dict(Pool(count_rows, workers=2).run(["good", "bad", "fine"]))
    assert found["good"] == found["fine"] == {"done": [0, 1, 2, 3, 4]}
    assert found["bad"] == {"done": [0, 1, 2, 4]}


def test_a_worker_that_dies_before_its_first_row_is_an_error():
    with pytest.raises(TemplateError, match="status 9"):
        list(Pool(die_at_once, workers=1).run(["job"]))


def test_an_error_of_a_job_comes_back_with_its_hint():
    with pytest.raises(SourceError, match="no job") as caught:
        list(Pool(refuse, workers=1).run(["job"]))
    assert caught.value.hint == "another"


def break_down(job, skip, beat):
    return {}[job]


def test_a_fault_of_our_own_in_a_worker_is_told_and_not_taken_for_a_death():
    with pytest.raises(TemplateError, match="KeyError"):
        list(Pool(break_down, workers=1).run(["job"]))


def test_no_job_needs_no_worker():
    assert list(Pool(count_rows, workers=4).run([])) == []
