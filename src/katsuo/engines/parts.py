"""
An answer in two parts, as a plan: what to ask the model for, one request after the other.

For engines whose decoder is not ours: they carry out the requests, each in its own way. An engine whose decoder is ours
(`hf`) goes from the one part to the other between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from katsuo.config import Sampling
from katsuo.records import Completion, Constraint, Prompt

MARKER = "<|pipe|>"
"""Stands on the line between instruction and answer."""


@dataclass(frozen=True)
class Request:
    """What one request asks for beyond the prompt. `written` is what the model has written of its answer before."""

    max_new_tokens: int
    temperature: float
    top_p: float
    written: str = ""
    grammar: str = ""


Plan = Generator[Request, Completion, Completion]
"""Yields requests, is sent what the model wrote for each, and returns the whole completion."""


def plan(prompt: Prompt, sampling: Sampling, *, has_grammar: bool) -> Plan:
    """Ask for a completion in one go, or for the instruction and then, under its own grammar, the answer that fits."""
    if prompt.constraint and sampling.grammar and has_grammar:
        return (yield from _in_two_parts(sampling, prompt.constraint))
    whole = yield _request(sampling)
    if sampling.answer == "greedy" and whole.finish in ("stop", "length") and MARKER in whole.text:
        return (yield from _answered_again(sampling, whole))
    return whole


def carry_out(steps: Plan, write: Callable[[Request], Completion]) -> Completion:
    """Give the completion of a plan whose requests `write` answers."""
    try:
        request = next(steps)
        while True:
            request = steps.send(write(request))
    except StopIteration as ended:
        completion: Completion = ended.value
        return completion


def _in_two_parts(sampling: Sampling, constraint: Constraint) -> Plan:
    first = yield _request(sampling, grammar=constraint.instruction())
    instruction = first.text.rstrip()
    if first.finish != "stop" or not instruction.endswith(MARKER):
        return first  # no instruction, no answer: the checks say what is wrong
    left = sampling.max_new_tokens - first.new_tokens
    if left <= 0:
        return Completion(first.text, "length", first.new_tokens)
    written = f"{instruction}\n"
    grammar = constraint.answer(instruction.removesuffix(MARKER).removesuffix("\n"))
    answer = yield _request(sampling, written=written, grammar=grammar, max_new_tokens=left, is_answer=True)
    return _joined(written, answer, first.new_tokens)


def _answered_again(sampling: Sampling, whole: Completion) -> Plan:
    """Keep the instruction and write its answer greedily."""
    written = f"{whole.text.partition(MARKER)[0].rstrip()}\n{MARKER}\n"
    answer = yield _request(sampling, written=written, is_answer=True)
    return _joined(written, answer, whole.new_tokens)


def _request(
    sampling: Sampling, *, written: str = "", grammar: str = "", max_new_tokens: int = 0, is_answer: bool = False
) -> Request:
    return Request(
        max_new_tokens=max_new_tokens or sampling.max_new_tokens,
        temperature=0.0 if is_answer and sampling.answer == "greedy" else sampling.temperature,
        top_p=sampling.top_p,
        written=written,
        grammar=grammar,
    )


def _joined(written: str, answer: Completion, tokens_before: int) -> Completion:
    return Completion(written + answer.text, answer.finish, tokens_before + answer.new_tokens, answer.error)
