"""From documents to passages: filter, cut, filter again, and count what was left out on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from katsuo.engines.base import CanCountTokens, CanGenerate
from katsuo.errors import RecipeError
from katsuo.pipeline.chunk import approximate_tokens, chunk
from katsuo.pipeline.clean import DocumentFilter, PassageFilter
from katsuo.records import Document, Passage, Reject
from katsuo.tasks import TaskType
from katsuo.tasks.codec import Codec

CountTokens = Callable[[Sequence[str]], list[int]]
_SMALLEST_PASSAGE = 16


@dataclass
class Preparation:
    """Turn documents into passages, lazily; count the documents and keep what is left out."""

    size: int
    overlap: int
    count_tokens: CountTokens
    passage_filter: PassageFilter
    documents: int = 0
    _rejects: list[Reject] = field(default_factory=list)

    def take_rejects(self) -> list[Reject]:
        """Give what was left out since the last call."""
        taken, self._rejects = self._rejects, []
        return taken

    def passages(self, documents: Iterable[Document | Reject], limit: int | None = None) -> Iterator[Passage]:
        """Give the passages of all documents, in order, at most `limit` of them."""
        return islice(self._all_passages(documents), limit)

    def _all_passages(self, documents: Iterable[Document | Reject]) -> Iterator[Passage]:
        document_filter = DocumentFilter()
        for document in documents:
            self.documents += 1
            if isinstance(document, Reject):
                self._rejects.append(document)
                continue
            if refused := document_filter.reject(document):
                self._rejects.append(refused)
                continue
            for passage in chunk(document, count_tokens=self.count_tokens, size=self.size, overlap=self.overlap):
                if left_out := self.passage_filter.reject(passage):
                    self._rejects.append(left_out)
                else:
                    yield passage


def token_counter(engine: CanGenerate) -> CountTokens:
    """Give the engine's own token counter, or an estimate where it has none."""
    return engine.count_tokens if isinstance(engine, CanCountTokens) else approximate_tokens


def passage_size(
    asked: int, *, engine: CanGenerate, tasks: Sequence[TaskType], codec: Codec, max_new_tokens: int
) -> int:
    """
    Give the longest passage, in tokens, that fits the model beside the prompt's frame and its answer.

    Raise `RecipeError` where the model's context leaves no room for a passage.
    """
    frames = []
    for task in tasks:
        text, messages = codec.render(task, "")
        frames.append(text + "\n\n".join(message.content for message in messages))
    frame = max(token_counter(engine)(frames)) + 16 * max(1, len(codec.render(tasks[0], "")[1]))
    room = engine.info.context_tokens - frame - max_new_tokens
    if room < _SMALLEST_PASSAGE:
        raise RecipeError(
            f"the model takes {engine.info.context_tokens} tokens: the prompt's frame ({frame}) and the answer "
            f"({max_new_tokens}) leave no room for a passage",
            hint="lower `sampling.max_new_tokens`, or choose a model with a longer context",
        )
    return min(asked, room)
