"""Caches that are bounded by bytes, of which keys that come only once take a small part."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

OVERHEAD = 300
"""Bytes that an entry takes besides its key and its value, about."""
MAX_SHARE = 8
"""One entry may take at most this fraction, 1/8, of a cache; a larger one is not kept."""
_NEW_SHARE = 8
"""The fraction, 1/8, that new entries take together."""
_MAX_REMEMBERED = 2_000
"""Keys that are remembered, by their hashes, after their entries were dropped."""
_TRIALS = 2
"""How often a new entry is used until it counts as in use: one request may look for a document twice."""


class _Entry(NamedTuple, Generic[V]):
    value: V
    size: int
    uses: int


class Recent(Generic[K, V]):
    """A cache. Whoever puts a value in says how many bytes it takes, about.

    Many keys that each come once push nothing out that is in use, and take an eighth of the room: new entries have a
    part of their own, and are moved when they are used again, or come again soon after they were dropped. In each part,
    what was used longest ago goes first. (The 2Q of Johnson and Shasha, VLDB 1994.)
    """

    def __init__(self, max_bytes: int, *, max_share: int = MAX_SHARE) -> None:
        """`max_share`: one entry may take at most this fraction of the cache."""
        self.max_bytes = max_bytes
        self._largest = max_bytes // max_share
        self._new: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._used: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._new_size = self._used_size = 0
        self._dropped: OrderedDict[int, None] = OrderedDict()
        """Hashes of the keys of new entries that were dropped."""

    def __len__(self) -> int:
        return len(self._new) + len(self._used)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._new_size + self._used_size

    def get(self, key: K) -> V | None:
        entry = self._used.get(key)
        if entry is not None:
            self._used.move_to_end(key)
            return entry.value
        entry = self._new.get(key)
        if entry is None:
            return None
        if entry.uses >= _TRIALS:
            self.drop(key)
            self._use(key, entry)
        else:
            self._new[key] = entry._replace(uses=entry.uses + 1)
        return entry.value

    def put(self, key: K, value: V, size: int) -> None:
        """Replaces an entry with the same key."""
        is_used = key in self._used
        self.drop(key)
        entry = _Entry(value, size + OVERHEAD, 1)
        if entry.size > self._largest:
            return
        hash_ = hash(key)
        if is_used or hash_ in self._dropped:
            self._dropped.pop(hash_, None)
            self._use(key, entry)
            return
        self._new[key] = entry
        self._new_size += entry.size
        while self._new_size > self.max_bytes // _NEW_SHARE and len(self._new) > 1:
            self._drop_new()
        self._make_room()

    def clear(self) -> None:
        self._new.clear()
        self._used.clear()
        self._dropped.clear()
        self._new_size = self._used_size = 0

    def _use(self, key: K, entry: _Entry[V]) -> None:
        self._used[key] = entry
        self._used_size += entry.size
        self._make_room()

    def _make_room(self) -> None:
        while self.size > self.max_bytes:
            if self._used:
                _, entry = self._used.popitem(last=False)
                self._used_size -= entry.size
            else:
                self._drop_new()

    def _drop_new(self) -> None:
        key, entry = self._new.popitem(last=False)
        self._new_size -= entry.size
        self._dropped[hash(key)] = None
        if len(self._dropped) > _MAX_REMEMBERED:
            self._dropped.popitem(last=False)

    def drop(self, key: K) -> None:
        if (entry := self._new.pop(key, None)) is not None:
            self._new_size -= entry.size
        elif (entry := self._used.pop(key, None)) is not None:
            self._used_size -= entry.size
