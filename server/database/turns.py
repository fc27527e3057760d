"""Turns: changes of one process come one after the other, unless the one whose turn it is has to wait for the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

TURN_SECONDS = 1.0
"""A change that takes longer waits for the store: the next one begins beside it."""


class Turns:
    """Changes of one process that ran side by side would conflict, and run again and again."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Callable[[], None]]:
        """Waits for a turn, and gives the function that ends it before the block does."""
        await self._lock.acquire()
        has_ended = False

        def end() -> None:
            nonlocal has_ended
            if not has_ended:
                has_ended = True
                self._lock.release()

        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, end)
        try:
            yield end
        finally:
            timer.cancel()
            end()


def raise_if_cancelled() -> None:
    """Raises `CancelledError` again where a step had to swallow it, since it could not be taken back any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
