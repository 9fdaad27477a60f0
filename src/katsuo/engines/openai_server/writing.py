"""From a prompt to its completion: in one request, or the instruction first and then the answer that fits it."""

from __future__ import annotations

from katsuo.config import Sampling
from katsuo.engines.openai_server.endpoint import Endpoint
from katsuo.engines.openai_server.gate import Place
from katsuo.engines.parts import plan
from katsuo.errors import EngineError
from katsuo.records import Completion, Prompt


async def write(endpoint: Endpoint, place: Place, prompt: Prompt, sampling: Sampling) -> Completion:
    """Give the completion of one prompt, under its grammars where the server takes them."""
    if sampling.answer == "greedy" and not endpoint.can_continue:
        raise EngineError(
            "this server cannot be made to go on in a chat answer, which a greedy answer needs",
            hint="leave out `--answer greedy`, or serve the model with llama.cpp or vLLM",
        )
    has_grammar = endpoint.grammar_fields is not None
    if prompt.constraint and sampling.grammar and not has_grammar:
        endpoint.go_without_grammar()
    steps = plan(prompt, sampling, has_grammar=has_grammar)
    try:
        request = next(steps)
        while True:
            request = steps.send(await endpoint.write(place, prompt, request))
    except StopIteration as ended:
        completion: Completion = ended.value
        return completion
