from __future__ import annotations

import threading

import pytest

from katsuo.templates.sandbox.watch import OverTimeError, Watch


def spin() -> None:
    while True:
        pass


def test_an_endless_call_is_ended_and_the_next_one_runs():
    with Watch(0.1) as watch:
        for _ in range(3):
            with pytest.raises(OverTimeError):
                watch.run(spin)
            assert watch.run(sum, [1, 2]) == 3


def test_a_call_that_catches_everything_is_ended_too():
    def stubborn() -> None:
        while True:
            try:
                spin()
            except Exception:
                continue

    with Watch(0.1) as watch, pytest.raises(OverTimeError):
        watch.run(stubborn)


def test_it_works_outside_of_the_main_thread():
    found = []

    def elsewhere() -> None:
        with Watch(0.1) as watch:
            try:
                watch.run(spin)
            except OverTimeError as error:
                found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)
    assert len(found) == 1


def test_an_error_of_the_call_comes_through():
    with Watch(1) as watch, pytest.raises(ZeroDivisionError):
        watch.run(lambda: 1 / 0)
