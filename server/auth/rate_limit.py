"""The limit of a rate: a token bucket for each client. A token stands for a request, or for a point of cost."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MAX_CLIENTS = 10_000
"""The client with the oldest request is dropped first; it then has a full bucket again."""


class RateLimit:
    """Token buckets, by the name of the client."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        """`per_minute`: also the size of a bucket: after a silent minute, so many tokens may be taken at once."""
        self.capacity = per_minute
        self.per_second = per_minute / 60
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client: the tokens left, and the time when they were counted."""

    @property
    def remembers_any(self) -> bool:
        return bool(self._buckets)

    def left(self, client: str) -> float:
        """The tokens in the bucket now."""
        left, since = self._buckets.get(client, (self.capacity, 0.0))
        return min(self.capacity, left + (self._now() - since) * self.per_second)

    def is_exhausted(self, client: str) -> bool:
        """Whether one more request would be refused; nothing is counted."""
        left, since = self._buckets.get(client, (self.capacity, 0.0))
        return left < 1 and left + (self._now() - since) * self.per_second < 1

    def wait(self, client: str, tokens: float = 1) -> float:
        """Takes tokens: returns 0.0 if there were so many. Else it takes none, and returns the seconds until then."""
        now = self._now()
        left, since = self._buckets.pop(client, (self.capacity, now))
        left = min(self.capacity, left + (now - since) * self.per_second)
        is_allowed = left >= tokens
        self._buckets[client] = (left - tokens if is_allowed else left, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (tokens - left) / self.per_second

    def give_back(self, client: str, tokens: float) -> None:
        """Undoes a `wait` that took so many tokens, which were not used."""
        if client in self._buckets:
            left, since = self._buckets[client]
            self._buckets[client] = (left + tokens, since)
