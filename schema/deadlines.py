"""Deadlines: work that is given up when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(deadline: asyncio.Timeout, work: Awaitable[T], error: Exception) -> T:
    """Raises the error at the deadline; a `TimeoutError` of the work itself stays what it is."""
    try:
        async with deadline:
            return await work
    except TimeoutError:
        if not deadline.expired():
            raise
        raise error from None
