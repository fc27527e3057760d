"""What a client may still use: points, a point for each unit of an operation's cost, which come back with time.

Whoever executes an operation takes its cost first. A query or a mutation for which the points do not suffice is
refused; a subscription waits until they do.
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Protocol

from graphql import GRAPHQL_MAX_INT, GraphQLError

from schema.errors import BUDGET_EXCEEDED
from schema.scalars import rfc3339

_LOW = 4
"""Live queries slow down when less than this fraction, 1/4, of the points remains."""


class Allowance(Protocol):
    """The points of one client."""

    @property
    def limit(self) -> int:
        """The most that there can be."""

    @property
    def per_second(self) -> float:
        """The points that come back in a second."""

    @property
    def remaining(self) -> int:
        """The points that are there now."""

    @property
    def reset_at(self) -> datetime:
        """When there will be `limit` points, if none are taken until then."""

    def take(self, points: int) -> float:
        """Takes points: returns 0.0 if there were so many. Else it takes none, and returns the seconds until then."""

    def give_back(self, points: int) -> None:
        """Undoes a `take`: the points were not used."""


class _Unlimited:
    """An allowance that never ends."""

    limit = remaining = GRAPHQL_MAX_INT
    per_second = math.inf

    @property
    def reset_at(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    def take(self, _points: int) -> float:
        return 0.0

    def give_back(self, points: int) -> None:
        pass


UNLIMITED: Allowance = _Unlimited()


def charge(allowance: Allowance, cost: int) -> None:
    """Takes the cost of an operation that is to be executed, at least one point. Raises `GraphQLError`."""
    seconds = allowance.take(max(cost, 1))
    if seconds:
        raise _exceeded(allowance, cost, seconds)


def _exceeded(allowance: Allowance, cost: int, seconds: float) -> GraphQLError:
    remaining = allowance.remaining
    told: dict[str, str | int] = {"cost": cost, "remaining": remaining, "resetAt": rfc3339(allowance.reset_at)}
    message = f"This operation costs {cost} points, and {remaining} of this client's {allowance.limit} remain"
    if cost > allowance.limit:
        message = f"{message}: ask for less."
    else:
        told["retryAfter"] = math.ceil(seconds)
        message = f"{message}: try again in {told['retryAfter']} s."
    return GraphQLError(message, extensions={"code": BUDGET_EXCEEDED, **told})


class Toll:
    """What each execution of a subscription costs its client: paid before the next event is read.

    While the points do not suffice no event is read, so that changes become one event, as for a slow subscriber.
    """

    __slots__ = ("_allowance", "_cost", "_is_paid")

    def __init__(self, allowance: Allowance, cost: int) -> None:
        """Raises `GraphQLError` for a cost that the client can never pay."""
        self._allowance = allowance
        self._cost = max(cost, 1)
        self._is_paid = False
        if self._cost > allowance.limit:
            raise _exceeded(allowance, cost, math.inf)

    def try_open(self) -> bool:
        """Pays for the next execution, if the points suffice; returns whether it is paid."""
        return self._pay() == 0.0

    async def opened(self) -> None:
        """Returns when the next execution is paid."""
        while seconds := self._pay():  # noqa: ASYNC110 - points come back with time, and nothing tells of it
            await asyncio.sleep(seconds)

    def use(self) -> None:
        """What was paid is used for an execution."""
        self._is_paid = False

    def give_back(self) -> None:
        """Takes back what was paid and not used, as where the answer was shared."""
        if self._is_paid:
            self._is_paid = False
            self._allowance.give_back(self._cost)

    @property
    def pause(self) -> float:
        """Seconds until what one execution cost has come back, if few points remain; else 0.0."""
        allowance = self._allowance
        return self._cost / allowance.per_second if allowance.remaining < allowance.limit / _LOW else 0.0

    def _pay(self) -> float:
        """Returns the seconds until the next execution can be paid; 0.0: it is paid."""
        if self._is_paid:
            return 0.0
        seconds = self._allowance.take(self._cost)
        self._is_paid = not seconds
        return seconds


FREE = Toll(UNLIMITED, 0)
