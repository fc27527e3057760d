"""The budget of a client: the points that its operations may cost, which come back with time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from server.auth.rate_limit import RateLimit


class ClientBudget:
    """One client's bucket of points: an `Allowance` of the schema."""

    __slots__ = ("_client", "_points")

    def __init__(self, points: RateLimit, client: str) -> None:
        self._points = points
        self._client = client

    @property
    def limit(self) -> int:
        return self._points.capacity

    @property
    def per_second(self) -> float:
        return self._points.per_second

    @property
    def remaining(self) -> int:
        return int(self._points.left(self._client))

    @property
    def reset_at(self) -> datetime:
        missing = self.limit - self._points.left(self._client)
        full = datetime.now(UTC) + timedelta(seconds=math.ceil(missing / self.per_second))
        return full.replace(microsecond=0)

    def take(self, points: int) -> float:
        return self._points.wait(self._client, points)

    def give_back(self, points: int) -> None:
        self._points.give_back(self._client, points)
