"""Answers that were paid for once are kept: one SQLite file that all runs of a user share."""

from katsuo.cache.disk import AnswerCache, CacheStats
from katsuo.cache.engine import CachedEngine

__all__ = ["AnswerCache", "CacheStats", "CachedEngine"]
