"""Turns: changes of one process come one after the other, except those that wait for the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

TURN_SECONDS = 0.05
"""A change that takes longer waits for the store, or for its answer on the way: the next one begins beside it."""
REPEAT_SECONDS = 2.0
"""The same for changes that are repeated, since another one has written what they had read."""


class Turns:
    """Changes of one process that ran side by side could conflict, and run again and again.

    Far from the store they do run side by side, since most do not touch the same records. Those that did conflict
    repeat one after the other.
    """

    def __init__(self) -> None:
        self._firsts = asyncio.Lock()
        self._repeats = asyncio.Lock()

    def turn(self) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Waits for a turn, and gives the function that ends it before the block does."""
        return _turn(self._firsts, TURN_SECONDS)

    def turn_to_repeat(self) -> AbstractAsyncContextManager[Callable[[], None]]:
        """The same for a change that has conflicted."""
        return _turn(self._repeats, REPEAT_SECONDS)


@asynccontextmanager
async def _turn(lock: asyncio.Lock, seconds: float) -> AsyncIterator[Callable[[], None]]:
    await lock.acquire()
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        if not has_ended:
            has_ended = True
            lock.release()

    timer = asyncio.get_running_loop().call_later(seconds, end)
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
