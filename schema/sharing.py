"""Responses that several subscribers share: the same event is executed once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Generic, TypeVar

from schema.changes import LiveTick, SubscriptionEvent
from server.database.recent import Recent
from server.database.steps import Steps
from server.database.watches import Dependence, Watch, Watches

A = TypeVar("A")

_SHARED_FOR = 0.05
"""Seconds that a response may be shared, since it may depend on the clock."""


class SharedAnswers(Generic[A]):
    """The responses to the latest events of one operation with its variables."""

    def __init__(
        self,
        answer: Callable[[SubscriptionEvent, Dependence], Awaitable[A]],
        steps: Steps,
        kept: Recent[Hashable, A],
        size: Callable[[A], int],
        watches: Watches | None = None,
    ) -> None:
        """`answer` also notes on what the answer to a live query depends. `steps`: those of all live queries.

        `kept`: the answers of all operations. `size`: the bytes, about, that an answer takes. `watches`: those of the
        database; None: any change may touch the answers.
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
        self.watch = Watch()
        """Of what touches the latest answer, while there are subscribers."""
        self._watches = watches
        self._subscribers = 0

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator[None]:
        """To be entered for as long as a subscriber takes answers."""
        self._subscribers += 1
        try:
            yield
        finally:
            self._subscribers -= 1
            if self._watches is not None and not self._subscribers:
                self._watches.drop(self.watch)

    async def to(self, event: SubscriptionEvent, executing: Callable[[], None] = lambda: None) -> A:
        """The answer; `executing` is called first where this call is the one that executes the operation."""
        known = self._known(event)
        if known is not None:
            if isinstance(event, LiveTick) and self._watches is not None and not self.watch.is_waiting:
                self._watches.wait_for_anything(self.watch)
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
        watches = self._watches if isinstance(event, LiveTick) else None
        dependence = Dependence(is_known=watches is not None)
        if watches is not None:
            watches.wait_for_anything(self.watch)
        answer = await self._answer(event, dependence)
        if watches is not None:
            watches.wait_for(self.watch, dependence)
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
