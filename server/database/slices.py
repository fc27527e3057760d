"""Slices: long synchronous work, done in short pieces between which the event loop goes on.

The work stays plain functions, however deep: wherever it may be interrupted, it calls `give_way`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from time import monotonic
from typing import TypeVar

from greenlet import getcurrent, greenlet

from server.database.steps import STEP_SECONDS

T = TypeVar("T")


class _Work(greenlet):
    until = 0.0
    """When its slice is over."""


def give_way() -> None:
    """Lets the event loop go on if the current slice is over; does nothing in work that is not done in slices."""
    current = getcurrent()
    if type(current) is _Work and monotonic() >= current.until:
        assert current.parent is not None
        current.parent.switch()


def is_sliced() -> bool:
    """Whether the current work may give way."""
    return type(getcurrent()) is _Work


async def in_slices(work: Callable[[], T], turn: Callable[[], Awaitable[None]]) -> T:
    """The result of the work. `turn` is awaited before each slice. A cancellation ends the work where it is."""
    running = _Work(work)
    running.gr_context = copy_context()
    try:
        while True:
            await turn()
            running.until = monotonic() + STEP_SECONDS
            result: T = running.switch()
            if running.dead:
                return result
    finally:
        if not running.dead:
            running.throw()
