"""The limit of a rate: a token bucket for each client. A token stands for a request, or for a point of cost."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MAX_CLIENTS = 10_000
"""The client with the oldest request is dropped first; it then has a full bucket again."""


class _Bucket:
    __slots__ = ("left", "since")

    def __init__(self, left: float, since: float) -> None:
        self.left = left
        """The tokens that were left when they were counted."""
        self.since = since
        """The time when they were counted."""


class RateLimit:
    """Token buckets, by the name of the client."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        """`per_minute`: also the size of a bucket: after a silent minute, so many tokens may be taken at once."""
        self.capacity = per_minute
        self.per_second = per_minute / 60
        self._now = now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @property
    def remembers_any(self) -> bool:
        return bool(self._buckets)

    def left(self, client: str) -> float:
        """The tokens in the bucket now."""
        bucket = self._buckets.get(client)
        if bucket is None:
            return self.capacity
        return min(self.capacity, bucket.left + (self._now() - bucket.since) * self.per_second)

    def is_exhausted(self, client: str) -> bool:
        """Whether one more request would be refused; nothing is counted."""
        bucket = self._buckets.get(client)
        return bucket is not None and bucket.left < 1 and self.left(client) < 1

    def wait(self, client: str, tokens: float = 1) -> float:
        """Takes tokens: returns 0.0 if there were so many. Else it takes none, and returns the seconds until then."""
        now, bucket = self._now(), self._buckets.get(client)
        if bucket is None:
            bucket = self._add(client, now)
        left = bucket.left + (now - bucket.since) * self.per_second
        left = min(left, self.capacity)
        is_allowed = left >= tokens
        bucket.left = left - tokens if is_allowed else left
        bucket.since = now
        self._buckets.move_to_end(client)
        return 0.0 if is_allowed else (tokens - left) / self.per_second

    def give_back(self, client: str, tokens: float) -> None:
        """Undoes a `wait` that took so many tokens, which were not used."""
        if (bucket := self._buckets.get(client)) is not None:
            bucket.left += tokens

    def _add(self, client: str, now: float) -> _Bucket:
        bucket = self._buckets[client] = _Bucket(self.capacity, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return bucket
