"""Caches that are bounded by bytes: what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

OVERHEAD = 300
"""Bytes that an entry takes besides its key and its value, about."""
MAX_SHARE = 8
"""One entry may take at most this fraction, 1/8, of a cache; a larger one is not kept."""


class Recent(Generic[K, V]):
    """A cache. Whoever puts a value in says how many bytes it takes, about."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        """Bytes."""
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Replaces an entry with the same key."""
        self.drop(key)
        size += OVERHEAD
        if size > self.max_bytes // MAX_SHARE:
            return
        self._kept[key] = value, size
        self.size += size
        while self.size > self.max_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self.size -= oldest

    def drop(self, key: K) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size -= kept[1]

    def clear(self) -> None:
        self._kept.clear()
        self.size = 0
