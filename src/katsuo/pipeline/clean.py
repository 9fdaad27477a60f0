"""Decide which documents and passages are asked about; each that is not becomes a reject with its reason."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from katsuo.pipeline.key_file import KeyFile
from katsuo.pipeline.similar import NearDuplicates
from katsuo.pipeline.words import runs_of, words_of
from katsuo.records import Document, Passage, Reason, Reject
from katsuo.tasks.codec import find_marker


class DocumentFilter:
    """Leave out documents that are empty or whose words came before in another document."""

    def __init__(self) -> None:
        self._seen = KeyFile()

    def reject(self, document: Document) -> Reject | None:
        """Give the reject of a document that is not to be cut, None for one that is."""
        if not document.text.strip():
            return Reject("document", Reason.EMPTY_DOCUMENT, document.source)
        digest = blake2b(" ".join(document.text.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        if self._seen.find((key,)):
            return Reject("document", Reason.DUPLICATE_DOCUMENT, document.source)
        self._seen.add((key,), 0)
        return None


class PassageFilter:
    """Leave out passages with control markers, near-duplicates, and those that held-out data share."""

    def __init__(self, similarity: float, held_out: HeldOut | None = None) -> None:
        self._near = NearDuplicates(similarity)
        self._held_out = held_out

    def reject(self, passage: Passage) -> Reject | None:
        """Give the reject of a passage that is not to be asked about, None for one that is."""
        if marker := find_marker(passage.text):
            return _reject(passage, Reason.CONTROL_MARKER, marker)
        if not words_of(passage.text):
            return _reject(passage, Reason.EMPTY_PASSAGE, passage.text[:80])
        if self._held_out and (shared := self._held_out.find(passage.text)):
            return _reject(passage, Reason.HELD_OUT, shared)
        if self._near.is_duplicate(passage.text):
            return _reject(passage, Reason.DUPLICATE_PASSAGE, passage.text[:80])
        return None

    def close(self) -> None:
        """Drop the index of passages."""
        self._near.close()


class HeldOut:
    """
    Find passages that share a run of `ngram` words with held-out texts.

    A held-out text of fewer words is found where a passage holds all of them in a row; one of a single word is not
    looked for.
    Does not measure paraphrases of the held-out texts.
    """

    def __init__(self, texts: Iterable[str], ngram: int) -> None:
        self._runs: dict[int, set[str]] = {}
        for text in texts:
            words = words_of(text)
            size = min(ngram, len(words))
            if size > 1:
                self._runs.setdefault(size, set()).update(runs_of(words, size))

    def find(self, text: str) -> str | None:
        """Give the first shared run of words, None where nothing is shared."""
        words = words_of(text)
        for size, known in self._runs.items():
            for run in runs_of(words, size):
                if run in known:
                    return run
        return None


def _reject(passage: Passage, reason: Reason, detail: str) -> Reject:
    return Reject(
        kind="passage",
        reason=reason,
        source=passage.source,
        passage_id=passage.id,
        char_start=passage.char_start,
        char_end=passage.char_end,
        detail=detail,
    )
