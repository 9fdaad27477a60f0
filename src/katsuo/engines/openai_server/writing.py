"""From a prompt to its completion: in one request, or the instruction first and then the answer that fits it."""

from __future__ import annotations

from katsuo.config import Sampling
from katsuo.engines.openai_server.endpoint import Endpoint, Request
from katsuo.engines.openai_server.gate import Place
from katsuo.errors import EngineError
from katsuo.records import Completion, Constraint, Prompt

MARKER = "<|pipe|>"
"""Stands on the line between instruction and answer."""


async def write(endpoint: Endpoint, place: Place, prompt: Prompt, sampling: Sampling) -> Completion:
    """Give the completion of one prompt, under its grammars where the server takes them."""
    if sampling.answer == "greedy" and not endpoint.can_continue:
        raise EngineError(
            "this server cannot be made to go on in a chat answer, which a greedy answer needs",
            hint="leave out `--answer greedy`, or serve the model with llama.cpp or vLLM",
        )
    if prompt.constraint and sampling.grammar and endpoint.grammar_fields:
        return await _in_two_parts(endpoint, place, prompt, sampling, prompt.constraint)
    whole = await endpoint.write(place, prompt, _request(sampling))
    if sampling.answer == "greedy" and whole.finish in ("stop", "length") and MARKER in whole.text:
        return await _answered_again(endpoint, place, prompt, sampling, whole)
    return whole


async def _in_two_parts(
    endpoint: Endpoint, place: Place, prompt: Prompt, sampling: Sampling, constraint: Constraint
) -> Completion:
    first = await endpoint.write(place, prompt, _request(sampling, grammar=constraint.instruction()))
    instruction = first.text.rstrip()
    if first.finish != "stop" or not instruction.endswith(MARKER):
        return first  # no instruction, no answer: the checks say what is wrong
    left = sampling.max_new_tokens - first.new_tokens
    if left <= 0:
        return Completion(first.text, "length", first.new_tokens)
    written = f"{instruction}\n"
    grammar = constraint.answer(instruction.removesuffix(MARKER).removesuffix("\n"))
    request = _request(sampling, written=written, grammar=grammar, max_new_tokens=left, is_answer=True)
    return _joined(written, await endpoint.write(place, prompt, request), first.new_tokens)


async def _answered_again(
    endpoint: Endpoint, place: Place, prompt: Prompt, sampling: Sampling, whole: Completion
) -> Completion:
    """Keep the instruction and write its answer greedily."""
    written = f"{whole.text.partition(MARKER)[0].rstrip()}\n{MARKER}\n"
    answer = await endpoint.write(place, prompt, _request(sampling, written=written, is_answer=True))
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
