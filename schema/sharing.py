"""Responses that several subscribers share: the same event is executed once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

from schema.changes import LiveTick, SubscriptionEvent
from server.database.recent import Recent
from server.database.steps import Steps

A = TypeVar("A")

_SHARED_FOR = 0.05
"""Seconds that a response may be shared, since it may depend on the clock."""


class SharedAnswers(Generic[A]):
    """The responses to the latest events of one operation with its variables."""

    def __init__(
        self,
        answer: Callable[[SubscriptionEvent], Awaitable[A]],
        steps: Steps,
        kept: Recent[Hashable, A],
        size: Callable[[A], int],
    ) -> None:
        """`steps`: those of all live queries. `kept`: the answers of all operations.

        `size`: the bytes, about, that an answer takes.
        """
        self._answer = answer
        self._steps = steps
        self._kept = kept
        self._size = size
        self._own = object()
        """Tells its answers from those of the others."""
        self._keys: list[Hashable] = []
        self._since = 0.0
        self._ticking = asyncio.Lock()
        self._ticks = 0
        """How often the live query was executed, or begun to be."""
        self._latest: tuple[int, A] | None = None
        """Its latest answer, with the value of `_ticks` since which it is that; None while nobody waits for it."""
        self._waiting = 0

    async def to(self, event: SubscriptionEvent, executing: Callable[[], None] = lambda: None) -> A:
        """The answer; `executing` is called first where this call is the one that executes the operation."""
        known = self._known(event)
        if known is not None:
            return known
        if isinstance(event, LiveTick):
            return await self._to_tick(event, executing)
        return await self._executed(event, executing)

    async def _to_tick(self, tick: LiveTick, executing: Callable[[], None]) -> A:
        """An answer no older than the tick: while live queries wait for their turn, the ticks of one become one."""
        came_at = self._ticks
        self._waiting += 1
        try:
            async with self._ticking:
                if self._latest is None or self._latest[0] <= came_at:
                    await self._steps.turn()
                    self._ticks += 1
                    number = self._ticks
                    self._latest = number, await self._executed(tick, executing)
                return self._latest[1]
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._latest = None

    async def _executed(self, event: SubscriptionEvent, executing: Callable[[], None]) -> A:
        executing()
        answer = await self._answer(event)
        key = self._own, event.identity
        self._kept.put(key, answer, self._size(answer))
        self._keys.append(key)
        return answer

    def _known(self, event: SubscriptionEvent) -> A | None:
        now = monotonic()
        if now - self._since > _SHARED_FOR:
            for key in self._keys:
                self._kept.drop(key)
            self._keys.clear()
            self._since = now
        return self._kept.get((self._own, event.identity))
