"""Long work of several tasks leaves the passes of the event loop to others, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress

import pytest

from server.database import steps as module
from server.database.steps import STEP_SECONDS, Steps

pytestmark = pytest.mark.anyio

PORTION = 0.6 * STEP_SECONDS


class Clock:
    """Goes on only where work is done; counts the passes of the loop meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.passes = 0

    def __call__(self) -> float:
        return self.now

    async def count_passes(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.passes += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


async def test_work_alone_goes_on_at_once() -> None:
    """Where nobody else works, a turn does not give the loop away."""
    steps, others = Steps(), 0

    async def count() -> None:
        nonlocal others
        others += 1

    task = asyncio.create_task(count())
    await steps.turn()
    assert others == 0
    await task


async def test_many_tasks_share_a_pass(clock: Clock) -> None:
    """However many tasks work, in one pass there is no more than one step of work, and each task gets on."""
    steps, worked = Steps(), list[tuple[int, int]]()

    async def work(number: int) -> None:
        for _ in range(5):
            await steps.turn()
            clock.now += PORTION
            worked.append((clock.passes, number))

    counting = asyncio.create_task(clock.count_passes())
    await asyncio.gather(*map(work, range(50)))
    counting.cancel()
    assert len(worked) == 250
    assert clock.passes >= 250 / 2
    assert max(Counter(number for number, _ in worked).values()) <= 4  # what came after the count, and before the next
    done = Counter[int]()
    for _, number in worked:
        done[number] += 1
        assert done[number] <= 3 + min(done[other] for other in range(50))  # the first ones find nobody waiting


async def test_who_gives_up_waiting_keeps_nobody(clock: Clock) -> None:
    """A task that is cancelled while it waits loses its place, and those behind it go on."""
    steps, worked = Steps(), list[int]()

    async def work(number: int) -> None:
        await steps.turn()
        clock.now += 2 * STEP_SECONDS
        worked.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await asyncio.sleep(0)
    for given_up in tasks[1:4]:
        given_up.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert worked == [0, 4]


async def test_work_that_cannot_be_divided_rests() -> None:
    """A step that took far too long leaves other work as much time as it took."""
    steps, long = Steps(rests=True), 5 * STEP_SECONDS
    await steps.turn()
    time.sleep(long)
    ended = asyncio.get_running_loop().time()
    await steps.turn()
    assert asyncio.get_running_loop().time() - ended >= long - 0.001
