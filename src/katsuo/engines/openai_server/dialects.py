"""What servers of the OpenAI protocol add to it, each in its own words: a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from katsuo.engines import llama_words

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Dialect:
    """
    How one kind of server is asked for what the protocol leaves open.

    `sampling` turns off what the server would add to temperature and nucleus. `grammars` are the ways in which it may
    take a Lark grammar of llguidance; which one works depends on how it was built and started, so each is tried.
    `continues` makes a chat go on within its last message, `tokenize` asks `/tokenize` for the tokens of a text (of a
    model); None where that cannot be asked for. `is_forced` is true where log-probabilities come only of tokens that
    the server writes itself.
    """

    name: str
    sampling: Fields = field(default_factory=dict)
    grammars: tuple[Callable[[str], Fields], ...] = ()
    continues: Fields | None = None
    tokenize: Callable[[str, str], Fields] | None = None
    is_forced: bool = False


_GOES_ON = {"add_generation_prompt": False, "continue_final_message": True}

PLAIN = Dialect("plain")
DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "llamacpp",
            sampling=llama_words.SAMPLING,
            grammars=(llama_words.lark_fields,),
            continues={},
            tokenize=lambda _, text: {"content": text, "add_special": False, "parse_special": False},
            is_forced=True,
        ),
        Dialect(
            "vllm",
            sampling={"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            grammars=(
                lambda lark: {"structured_outputs": {"grammar": lark}},
                lambda lark: {"guided_grammar": lark},  # until 0.11
            ),
            continues=_GOES_ON,
            tokenize=lambda model, text: {"model": model, "prompt": text, "add_special_tokens": False},
        ),
        Dialect(
            "sglang",
            sampling={"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            grammars=(lambda lark: {"ebnf": f"%llguidance {{}}\n{lark}"},),
            continues={"continue_final_message": True},
        ),
    )
}
"""By what `GET /models` names as the owner. llama.cpp is run by the tests; the others follow their manuals."""

PROBE_WORDS = ("amber", "birch", "cedar")
PROBE_GRAMMAR = (
    "start: SPAN\nSPAN: PIECE & /\\S+(\\s+\\S+){0,1}/\n"
    f'PIECE: %regex {{"substring_words": "{" ".join(PROBE_WORDS)}"}}\n'
)
"""Allows one or two neighbours of the words: what an extractive answer needs, and what no model writes by chance."""


def obeys_probe(text: str) -> bool:
    """Say whether `text` is what the probe's grammar allows."""
    words = text.split()
    return 0 < len(words) <= 2 and " ".join(words) in " ".join(PROBE_WORDS)
