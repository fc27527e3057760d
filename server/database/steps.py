"""Steps: long work is done in short ones, so that the event loop is never kept for long."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

STEP_SECONDS = 0.01
"""How long work of one sort may keep the loop in one pass of it."""
RECORDS_PER_STEP = 1000
"""Records that are indexed together: it takes some milliseconds."""
_WOKEN_TOGETHER = 32
"""Tasks that are woken for one pass: to wake each for every pass would take long where thousands wait."""
_MUCH_TOO_LONG = 2 * STEP_SECONDS

Item = TypeVar("Item")
Rank = TypeVar("Rank", bound=tuple[Any, ...])


def portions_of(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def sorted_parts(items: Sequence[Rank]) -> Iterator[list[Rank]]:
    """All items in order, in parts, each after a short step; a part is empty where that is not the end of one yet.

    Each item goes to the part between two of a sample, and then the parts are sorted.
    """
    sample = sorted(items[::RECORDS_PER_STEP])
    parts: list[list[Rank]] = [[] for _ in range(len(sample) + 1)]
    for some in portions_of(items, RECORDS_PER_STEP):
        for item in some:
            parts[bisect(sample, item)].append(item)
        yield []
    for part in parts:
        part.sort()
        yield part


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """As `portions_of`, of what may have no length."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


class Steps:
    """Shares the passes of the event loop among all work of one sort, first come, first served.

    In one pass the loop runs each task that is ready; then it looks for what has arrived. So tasks that each give way
    after a short time still keep it for the sum of their times, unless they share a limit as here.
    """

    def __init__(self, *, rests: bool = False) -> None:
        """`rests`: for work that can't be divided. A pass that took far too long leaves as much time to other work."""
        self._rests = rests
        self._began: float | None = None
        """When the first work of the current pass began; None if there was none yet."""
        self._is_pass_due = False
        self._waiting: deque[asyncio.Event] = deque()

    async def turn(self) -> None:
        """Returns when the work may go on: at once if nobody waits and the pass has time left, else in a later one.

        To be awaited before each portion of the work. A portion ends with the next `await` that suspends the task.
        """
        if not self._waiting and self._has_time():
            return
        place = asyncio.Event()
        self._waiting.append(place)
        self._plan_pass()
        try:
            while True:
                await place.wait()
                place.clear()
                if self._has_time():
                    return
        finally:
            self._waiting.remove(place)

    def _has_time(self) -> bool:
        now = monotonic()
        if self._began is None:
            self._began = now
            self._plan_pass()
        return now - self._began < STEP_SECONDS

    def _plan_pass(self) -> None:
        if not self._is_pass_due:
            self._is_pass_due = True
            asyncio.get_running_loop().call_soon(self._begin_pass)

    def _begin_pass(self) -> None:
        took = 0.0 if self._began is None else monotonic() - self._began
        if self._rests and took > _MUCH_TOO_LONG:
            asyncio.get_running_loop().call_later(took, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._began = None
        self._is_pass_due = False
        for place in islice(self._waiting, _WOKEN_TOGETHER):
            place.set()
        if self._waiting:
            self._plan_pass()
