"""Background tasks and their end, and reads that run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

_CANCEL_AGAIN_AFTER = 0.5
"""Seconds. redis-py writes with `asyncio.wait_for`, which sometimes swallows a cancellation on Python 3.11."""


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks, again and again until they have ended, and ignores what they raise."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_CANCEL_AGAIN_AFTER)
    await asyncio.gather(*tasks, return_exceptions=True)


async def together(*reads: Awaitable[Any]) -> list[Any]:
    """The results of reads that run side by side, so that they take the time of one. Raises a failure at the end."""
    results = await asyncio.gather(*reads, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs something until the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end_tasks([task])
