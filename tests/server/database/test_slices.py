"""Long work in slices, and long reads during which the copy does not change."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from server.database.long_reads import LongReads
from server.database.slices import give_way, in_slices
from server.database.steps import STEP_SECONDS, Steps

pytestmark = pytest.mark.anyio

NAME: ContextVar[str] = ContextVar("NAME")


def work_of(passes: int) -> int:
    """Work of many slices, some calls deep."""

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        else:
            until = asyncio.get_running_loop().time() + STEP_SECONDS
            while asyncio.get_running_loop().time() < until:
                pass
            give_way()

    for _ in range(passes):
        deep(20)
    return passes


async def test_the_loop_goes_on_between_the_slices_of_work() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0)

    assert await in_slices(lambda: work_of(5), turn) == 5
    assert turns >= 5


async def test_work_in_slices_raises_its_error_and_knows_its_context() -> None:
    NAME.set("here")
    steps = Steps()
    with pytest.raises(ValueError, match="here"):
        await in_slices(lambda: int(NAME.get()), steps.turn)


async def test_a_cancellation_ends_work_where_it_is() -> None:
    ended = asyncio.Event()

    def endless() -> None:
        try:
            while True:
                give_way()
        finally:
            ended.set()

    task = asyncio.ensure_future(in_slices(endless, Steps().turn))
    await asyncio.sleep(2 * STEP_SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_outside_of_slices_nothing_gives_way() -> None:
    give_way()


async def test_a_change_waits_for_the_long_read_before_it_and_comes_before_the_next_one() -> None:
    reads, told = LongReads(), list[str]()
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with reads.reading("a"):
            inside.set()
            await go_on.wait()
            told.append("first")

    async def change() -> None:
        await reads.ended()
        told.append("change")

    async def second() -> None:
        async with reads.reading("b"):
            told.append("second")

    tasks = [asyncio.ensure_future(first())]
    await inside.wait()
    tasks += [asyncio.ensure_future(second()), asyncio.ensure_future(change())]
    await asyncio.sleep(STEP_SECONDS)
    assert told == []
    go_on.set()
    await asyncio.gather(*tasks)
    assert told == ["first", "change", "second"]


async def test_clients_take_turns() -> None:
    """However many long reads one of them begins."""
    reads, told = LongReads(), list[str]()

    async def read(client: str) -> None:
        async with reads.reading(client):
            await asyncio.sleep(0)
            told.append(client)

    await asyncio.gather(*map(read, "aaaab"))
    assert told.index("b") <= 1
