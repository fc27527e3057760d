"""The rate limit: a token bucket for each client."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MAX_CLIENTS = 10_000
"""The client with the oldest request is dropped first; it then has a full bucket again."""


class RateLimit:
    """Token buckets, by the name of the client."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        """`per_minute`: also the size of a bucket: after a silent minute, so many requests are allowed at once."""
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client: the tokens left, and the time when they were counted."""

    @property
    def remembers_any(self) -> bool:
        return bool(self._buckets)

    def is_exhausted(self, client: str) -> bool:
        """Whether one more request would be refused; nothing is counted."""
        left, since = self._buckets.get(client, (self._capacity, 0.0))
        return left < 1 and left + (self._now() - since) * self._per_second < 1

    def wait(self, client: str) -> float:
        """Counts one request: returns 0.0 if it is allowed, else the seconds after which the client may try again."""
        now = self._now()
        left, since = self._buckets.pop(client, (self._capacity, now))
        left = min(self._capacity, left + (now - since) * self._per_second)
        is_allowed = left >= 1
        self._buckets[client] = (left - 1 if is_allowed else left, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) / self._per_second
