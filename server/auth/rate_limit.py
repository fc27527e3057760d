"""The rate limit: a token bucket for each client."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_REMEMBERED = 10_000
"""Clients; whoever asked longest ago is forgotten first, and has a full bucket again."""


class RateLimit:
    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        """A client that was silent for a minute may send that many at once."""
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What was left, and when."""

    @property
    def remembers_any(self) -> bool:
        return bool(self._buckets)

    def is_exhausted(self, who: str) -> bool:
        """Whether one more request would be refused; takes none."""
        left, since = self._buckets.get(who, (self._capacity, 0.0))
        return left < 1 and left + (self._now() - since) * self._per_second < 1

    def wait(self, who: str) -> float:
        """Takes one request of a client: 0.0, or the seconds after which it may try again."""
        now = self._now()
        left, since = self._buckets.pop(who, (self._capacity, now))
        left = min(self._capacity, left + (now - since) * self._per_second)
        is_allowed = left >= 1
        self._buckets[who] = (left - 1 if is_allowed else left, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) / self._per_second
