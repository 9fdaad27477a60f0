"""The engine `llamacpp`: a GGUF model by llama.cpp, in this process."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial

from jinja2 import TemplateError

from katsuo.config import Sampling
from katsuo.engines.base import UNKNOWN_CODEC, Choices, EngineSettings, ModelInfo, Scores
from katsuo.engines.llamacpp.beside import find_beside
from katsuo.engines.llamacpp.model import LlamaModel, Shape, is_on_cpu
from katsuo.engines.llamacpp.prompts import Encoder
from katsuo.engines.llamacpp.score import Scored, encode_choices, score
from katsuo.engines.llamacpp.slots import in_units, over_slots
from katsuo.engines.llamacpp.writing import Row, Writer
from katsuo.errors import EngineError, ModelError, RecipeError
from katsuo.models import public_name
from katsuo.models.gguf_files.find import find_gguf, gguf_codec, gguf_revision
from katsuo.records import Completion, Prompt

_FIRST_TOKENS = 768
"""Room in a slot at first; prompts that need more make it larger."""
_STEP_TOKENS = 256
_SMALLER = "lower engine_options.batch_size or sampling.max_new_tokens"


class LlamaCppEngine:
    """
    Write completions with a GGUF model and, if asked, a LoRA adapter beside it.

    As many prompts as there are slots (`engine_options.batch_size`) are decoded together, each with its own grammar,
    and replaced as they end. What a slot has read is not read again: the beginning that chats share, the samples of one
    passage, and the prompt when the answer follows the instruction.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        if settings.options.revision:
            raise RecipeError(
                f'engine_options.revision is "{settings.options.revision}", but a GGUF file has no revisions',
                hint="leave it out; `katsuo pull --gguf NAME --revision REVISION` makes the file of one",
            )
        self._path = find_gguf(settings.model)
        self._adapter = find_beside(settings.adapter, self._path) if settings.adapter else None
        self._model = self._open(_FIRST_TOKENS)
        self._encoder = Encoder(self._model)
        trained = int(self._model.about["n_ctx_train"])
        self._too_much: float = math.inf
        """Tokens of a slot for which there was no memory."""
        self._context_tokens = min(settings.options.context_tokens or trained, trained)

    def _open(self, slot_tokens: int) -> LlamaModel:
        options = self._settings.options
        return LlamaModel(Shape(self._path, self._adapter, options.batch_size, slot_tokens, is_on_cpu(options.device)))

    @property
    def info(self) -> ModelInfo:
        """Say which model this is."""
        settings = self._settings
        name = public_name(settings.model) + (f" + {public_name(settings.adapter)}" if settings.adapter else "")
        usual = "instruct" if self._encoder.has_template else UNKNOWN_CODEC
        codec = gguf_codec(settings.model, self._path, settings.adapter) or usual
        return ModelInfo("llamacpp", name, gguf_revision(self._path), codec, self._context_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without those that mark its beginning and end."""
        return [len(self._encoder.encode_plain(text)) for text in texts]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order; raise `EngineError` when llama.cpp cannot go on."""
        completions = dict(self.stream(prompts, sampling))
        return [completions[place] for place in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as soon as it has ended."""
        rows: list[Row] = []
        for place, prompt in enumerate(prompts):
            row = self._row(place, prompt, sampling)
            if isinstance(row, Completion):
                yield place, row
            else:
                rows.append(row)
        if not rows:
            return
        needs = {row.place: len(row.tokens) + sampling.max_new_tokens for row in rows}
        room = self._make_room(needs.values())
        for row in rows:
            if needs[row.place] > room:
                yield row.place, Completion(finish="error", error=f"{self._no_room(needs[row.place])}; {_SMALLER}")
        slots = self._model.shape.slots
        units = in_units([row for row in rows if needs[row.place] <= room], slots, beginning=lambda row: row.tokens)
        writer = Writer(self._model, self._encoder.encode_plain, sampling)
        with closing(over_slots(units, slots, writer.write)) as ended:
            for row, completion in ended:
                yield row.place, completion

    def end_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer, as it would have to be typed."""
        return self._encoder.closing_text(is_chat=is_chat)

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give how likely every answer is after its prompt, one `Scores` per question, in order."""
        encoded = [
            encode_choices(place, question, self._encoder, self._context_tokens)
            for place, question in enumerate(questions)
        ]
        asked = [one for one in encoded if isinstance(one, Scored)]
        found: dict[int, Scores] = {}
        if asked:
            room = self._make_room(one.longest for one in asked)
            for one in asked:
                found[one.place] = Scores(finish="error", error=f"{self._no_room(one.longest)}; {_SMALLER}")
            asked = [one for one in asked if one.longest <= room]
            slots = self._model.shape.slots
            units = in_units(asked, slots, beginning=lambda one: one.prompt)
            found |= {one.place: scores for one, scores in over_slots(units, slots, partial(score, self._model))}
        return [one if isinstance(one, Scores) else found[one.place] for one in encoded]

    def _row(self, place: int, prompt: Prompt, sampling: Sampling) -> Row | Completion:
        """Turn a prompt into a row, or into the completion that says why it cannot be one."""
        try:
            tokens = self._encoder.encode(prompt)
        except TemplateError as error:
            return Completion(finish="error", error=f"the model's chat template refuses the prompt: {error}")
        if not tokens:
            return Completion(finish="error", error="the prompt is empty")
        if len(tokens) + sampling.max_new_tokens > self._context_tokens:
            return Completion(finish="too_long")
        return Row(place, prompt, tuple(tokens))

    def _make_room(self, needs: Iterable[int]) -> int:
        """
        Open the model again with longer slots where prompts with their answers need them, and give how long they are.

        Where there is no memory for the longest, the next longest has its turn: what is too long is refused alone.
        """
        had = self._model.shape.slot_tokens
        wanted = {-(-tokens // _STEP_TOKENS) * _STEP_TOKENS for tokens in needs if tokens > had}
        rooms = sorted((room for room in wanted if room < self._too_much), reverse=True)
        if not rooms:
            return had
        del self._model, self._encoder  # first, so that there is memory for one at a time
        for room in (*rooms, had):
            try:
                self._model = self._open(room)
            except ModelError as error:
                if room == had:
                    raise EngineError(self._no_room(had), hint=_SMALLER) from error
                self._too_much = room
            else:
                self._encoder = Encoder(self._model)
                return room
        raise AssertionError("the last room returns or raises")

    def _no_room(self, tokens: int) -> str:
        return f"llama.cpp finds no room for {self._settings.options.batch_size} slots of {tokens} tokens"
