"""Find near-duplicates in a stream of short texts, in bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from rensa import RMinHash

from katsuo.pipeline.key_file import KeyFile, RecordFile
from katsuo.pipeline.words import words_of

BANDS = 10
ROWS_PER_BAND = 4
NUM_PERM = BANDS * ROWS_PER_BAND
"""40 permutations in 10 bands: a pair of Jaccard similarity 0.8 meets in one with probability 0.995."""
SHINGLE_WORDS = 3

_SIGNATURE = struct.Struct(f"<{NUM_PERM}I")


class NearDuplicates:
    """
    Remember texts by their MinHash signatures and say whether a new one is much like an old one.

    Similarity is the Jaccard index of word 3-grams, estimated from 40 permutations (standard error at 0.8: 0.06);
    1.0 asks for equal words instead. The index lies in temporary files, so memory does not grow with it, and a text
    costs the same however many there are.
    Does not measure meaning: a paraphrase with other words is no near-duplicate.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._bands = KeyFile()
        self._signatures = RecordFile(_SIGNATURE.size)
        self._count = 0
        self._scope: str | None = None
        self._nearby: list[frozenset[str]] = []

    def is_duplicate(self, text: str, scope: str = "") -> bool:
        """Say whether a near-duplicate of `text` came before within `scope`; remember `text` if not."""
        words = words_of(text)
        if self.similarity >= 1.0:
            return self._is_known((hash((scope, *words)),), b"")
        shingles = _shingles(words)
        minhash = RMinHash(num_perm=NUM_PERM, seed=1)
        minhash.update(shingles)
        digest = minhash.digest()
        keys = [
            hash((scope, band, *digest[band * ROWS_PER_BAND : (band + 1) * ROWS_PER_BAND])) for band in range(BANDS)
        ]
        return self._is_known(keys, _SIGNATURE.pack(*digest))

    def is_repeated_nearby(self, text: str, scope: str) -> bool:
        """
        Say the same of texts whose scope comes in one run and never again; only the current scope is remembered.

        Few texts share such a scope, so they are compared outright: the Jaccard index is exact here.
        """
        shingles = frozenset(_shingles(words_of(text)))
        if scope != self._scope:
            self._scope, self._nearby = scope, []
        for known in self._nearby:
            if len(known & shingles) >= self.similarity * len(known | shingles):
                return True
        self._nearby.append(shingles)
        return False

    def close(self) -> None:
        """Drop the index."""
        self._bands.close()
        self._signatures.close()

    def _is_known(self, keys: Sequence[int], signature: bytes) -> bool:
        candidates = self._bands.find(keys)
        if candidates and (not signature or any(self._is_similar(item, signature) for item in sorted(candidates))):
            return True
        self._bands.add(keys, self._count)
        if signature:
            self._signatures[self._count] = signature
        self._count += 1
        return False

    def _is_similar(self, item: int, signature: bytes) -> bool:
        known = _SIGNATURE.unpack(self._signatures[item])
        equal = sum(a == b for a, b in zip(known, _SIGNATURE.unpack(signature), strict=True))
        return bool(equal / NUM_PERM >= self.similarity)


def _shingles(words: Sequence[str]) -> list[str]:
    return [" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))]
