"""Responses that several subscribers share: the same event is executed once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

from schema.changes import SubscriptionEvent

A = TypeVar("A")

_SHARED_FOR = 0.05
"""Seconds that a response may be shared, since it may depend on the clock."""
_SHARED_AT_MOST = 256
"""Answers of one operation."""


class SharedAnswers(Generic[A]):
    """The responses to the latest events of one operation with its variables."""

    def __init__(self, answer: Callable[[SubscriptionEvent], Awaitable[A]]) -> None:
        self._answer = answer
        self._answers: dict[Hashable, A] = {}
        self._since = 0.0

    async def to(self, event: SubscriptionEvent) -> A:
        now = monotonic()
        if now - self._since > _SHARED_FOR or len(self._answers) >= _SHARED_AT_MOST:
            self._answers.clear()
            self._since = now
        answer = self._answers.get(event.identity)
        if answer is None:
            answer = self._answers[event.identity] = await self._answer(event)
        return answer
