"""The engine `hf`: a causal language model of transformers, in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel

from katsuo.config import Sampling
from katsuo.engines.base import UNKNOWN_CODEC, Choices, EngineSettings, ModelInfo, Scores
from katsuo.engines.hf.decode import Decoder, Row
from katsuo.engines.hf.grammar import GrammarError, GrammarRow, Grammars
from katsuo.engines.hf.load import load_model
from katsuo.engines.hf.pack import pack_linears
from katsuo.engines.hf.probe import open_memory
from katsuo.engines.hf.prompts import closing_tokens, encode
from katsuo.engines.hf.score import AnswerScorer
from katsuo.errors import EngineError, ModelError
from katsuo.models import codec_of, public_name, revision_of
from katsuo.records import Completion, Prompt


class HfEngine:
    """
    Write completions with a base model and, beside it, a LoRA adapter.

    Rows of different lengths are decoded together and replaced as they finish; a beginning that prompts share is read
    once; a row with a constraint writes nothing but what its grammars allow.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._loaded = load_model(settings)
        self._scorer: AnswerScorer | None = None
        loaded = self._loaded
        pack_linears(loaded.model)
        self._decoder = Decoder(
            memory=open_memory(loaded.model),
            grammars=Grammars(loaded.tokenizer, vocabulary=_vocabulary(loaded.model), end_tokens=loaded.end_tokens),
            end_tokens=loaded.end_tokens,
            decode=self._decode,
            batch_size=settings.options.batch_size,
        )

    @property
    def info(self) -> ModelInfo:
        """Say which model this is."""
        adapter = self._settings.adapter
        name = public_name(self._settings.model) + (f" + {public_name(adapter)}" if adapter else "")
        return ModelInfo(
            engine="hf",
            model=name,
            revision=revision_of(self._loaded.folder),
            codec=self._codec(),
            context_tokens=self._loaded.context_tokens,
        )

    def _codec(self) -> str:
        """Name the codec that the model's files speak of; a recipe that names one does not need them to."""
        try:
            return codec_of(self._settings.model, self._settings.adapter, self._settings.options.revision)
        except ModelError:
            return UNKNOWN_CODEC

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without those that mark its beginning and end."""
        if not texts:
            return []
        encoded = self._loaded.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        return [len(tokens) for tokens in encoded.input_ids]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order; raise `EngineError` when the model cannot go on."""
        completions = dict(self.stream(prompts, sampling))
        return [completions[index] for index in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as soon as its row has ended."""
        rows: list[Row] = []
        for index, prompt in enumerate(prompts):
            start = self._start(index, prompt, sampling)
            if isinstance(start, Completion):
                yield index, start
            else:
                rows.append(start)
        if rows:
            with closing(self._run(rows, sampling)) as finished:
                for row in finished:
                    yield row.index, self._decoder.completion(row)

    def _start(self, index: int, prompt: Prompt, sampling: Sampling) -> Row | Completion:
        """Turn a prompt into a row, or into the completion that says why it cannot be one."""
        try:
            question = encode(self._loaded.tokenizer, prompt, end_tokens=self._loaded.end_tokens)
        except TemplateError as error:
            return Completion(finish="error", error=f"the model's chat template refuses the prompt: {error}")
        if not len(question.tokens):
            return Completion(finish="error", error="the prompt is empty")
        if len(question.tokens) + sampling.max_new_tokens > self._loaded.context_tokens:
            return Completion(finish="too_long")
        row = Row(index, question, prompt.seed)
        if prompt.constraint and sampling.grammar:
            try:
                row.grammar = GrammarRow(self._decoder.grammars, prompt.constraint, self._decode)
            except GrammarError as error:
                return Completion(finish="error", error=str(error))
        return row

    @torch.inference_mode()  # on a generator, it holds within each of its turns and not in between
    def _run(self, rows: Sequence[Row], sampling: Sampling) -> Generator[Row, None, None]:
        with _translated(self._decoder.batch_size):
            yield from self._decoder.run(rows, sampling)

    def end_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer, as it would have to be typed."""
        tokenizer, ends = self._loaded.tokenizer, self._loaded.end_tokens
        text: str = tokenizer.decode(closing_tokens(tokenizer, end_tokens=ends, is_chat=is_chat))
        return text

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give how likely every answer is after its prompt, one `Scores` per question, in order."""
        if self._scorer is None:
            self._scorer = AnswerScorer(self._loaded, self._settings.options.batch_size)
        with _translated(self._settings.options.batch_size):
            return self._scorer.score(questions)

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._loaded.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


@contextmanager
def _translated(batch_size: int) -> Iterator[None]:
    """Say in katsuo's words how a model broke."""
    hint = f"lower engine_options.batch_size; it is {batch_size}"
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(f"the device ran out of memory: {error}", hint=hint) from error
    except RuntimeError as error:
        # The allocator of the processor has no exception of its own.
        if "can't allocate memory" not in str(error):
            other = "try engine_options.device: cpu and dtype: float32, and report it with this text"
            raise EngineError(f"the model broke while it was answering: {error}", hint=other) from error
        raise EngineError(f"there is not enough memory: {error}", hint=hint) from error


def _vocabulary(model: PreTrainedModel) -> int:
    """Count the tokens that logits have a column for; some models have more columns than their tokenizer has tokens."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return int(head.weight.shape[0])
