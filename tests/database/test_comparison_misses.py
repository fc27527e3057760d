"""What counts as missed, and what does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, closing
from functools import partial

import pytest

from server.database.backends.base import Changed, Notice, Reload, ResultsBackend
from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import Entry, Key
from tests.support.comparison import (
    DEADLINE,
    SHORT,
    STUDY,
    MemoryWriter,
    Puppet,
    changes,
    compared,
    contents,
    holds,
    own_lines,
    until,
    writer_behind,
)
from tests.support.records import memory_of, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import RedisWriter, key_of

pytestmark = pytest.mark.anyio


async def test_nothing_is_missed_under_a_busy_writer(backend: ResultsBackend) -> None:
    """Another process writes without a pause, this one as well, and everything is compared all the while.

    Notices come late, so that much of it is found before them.
    """
    stop = asyncio.Event()
    backend.watch = partial(late, backend.watch, 0.3)  # type: ignore[method-assign]

    async def mutate(database: MerlinDatabase) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            made = await database.runs.create(f"own_{number % 3}", f"/own/{number}", ["[merlin]_q"])
            await database.runs.update(made.id, additional_data={"number": number})
            if number % 2:
                await database.runs.delete(made.id)
            await asyncio.sleep(0.01)

    async with compared(backend, deaf=False, delay=1.5) as (database, passes):
        suspects: set[Key] = set()
        suspect = database.comparison._suspect

        def note(differing: Mapping[Key, Entry | None]) -> None:
            suspects.update(differing)
            suspect(differing)

        database.comparison._suspect = note  # type: ignore[method-assign]
        others = write_here(backend, stop) if isinstance(backend, MemoryBackend) else write_elsewhere(backend, stop)
        tasks = [asyncio.create_task(mutate(database)), asyncio.create_task(others)]
        await until(lambda: len(suspects) >= 20)
        await passes.whole()
        stop.set()
        for task in tasks:
            await task
        assert await agrees_soon(database)
        await passes.whole()
        assert database.comparison.missed == 0


async def late(watch: Callable[[], AsyncGenerator[Notice]], seconds: float) -> AsyncGenerator[Notice]:
    """Each notice so much later."""
    queue: asyncio.Queue[tuple[float, Notice]] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(watch()) as notices:
            async for notice in notices:
                queue.put_nowait((time.monotonic() + seconds, notice))

    listening = asyncio.create_task(listen())
    try:
        while True:
            at, notice = await queue.get()
            await asyncio.sleep(at - time.monotonic())
            yield notice
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def write_elsewhere(backend: ResultsBackend, stop: asyncio.Event) -> None:
    def write() -> None:
        with closing(writer_behind(backend)) as writer:
            for change in changes():
                if stop.is_set():
                    return
                if isinstance(change, Key):
                    writer.delete(change)
                else:
                    writer.delete(key_of(change))
                    writer.create(change)
                time.sleep(0.001)

    await asyncio.to_thread(write)


async def write_here(backend: MemoryBackend, stop: asyncio.Event) -> None:
    for change in changes():
        if stop.is_set():
            return
        backend.store(*((change, None) if isinstance(change, Key) else (key_of(change), encode(change))))
        await asyncio.sleep(0.001)


async def agrees_soon(database: MerlinDatabase) -> bool:
    async with asyncio.timeout(DEADLINE):
        while contents(database) != {
            entry.key: entry.record async for batch in database.backend.scan() for entry in batch
        }:
            await asyncio.sleep(0.01)
    return True


async def test_a_notice_that_is_late_is_no_lost_one(caplog: pytest.LogCaptureFixture) -> None:
    """A change that is found before its notice comes, is the notice's."""
    backend = await memory_of(study(1), study(2))
    told: asyncio.Queue[Notice] = asyncio.Queue()

    async def late() -> AsyncGenerator[Notice]:
        yield Reload()
        while True:
            yield await told.get()

    backend.watch = late  # type: ignore[method-assign]
    async with compared(backend, deaf=False, delay=0.3) as (database, passes):
        MemoryWriter(backend).update(Key(STUDY, uid(1)), name="new")
        MemoryWriter(backend).delete(Key(STUDY, uid(2)))
        await until(lambda: len(database.comparison._suspects) == 2)
        told.put_nowait(Changed(frozenset({Key(STUDY, uid(1)), Key(STUDY, uid(2))})))
        await until(lambda: holds(database, study(1, "new")))
        await passes.whole()
        assert (database.comparison.missed, own_lines(caplog)) == (0, [])


async def test_a_change_that_is_still_being_read_is_no_missed_one() -> None:
    """Its notice came, and reading takes longer than any notice."""
    puppet = Puppet()
    key = Key(STUDY, uid(1))
    async with compared(puppet, study(1), deaf=False, delay=0.05) as (database, passes):
        fetch, reading, gate = puppet.fetch, asyncio.Event(), asyncio.Event()

        async def read_slowly(keys: Collection[Key]) -> list[Entry]:
            if set(keys) == {key} and asyncio.current_task() in database.feed._tasks:
                reading.set()
                await gate.wait()
            return await fetch(keys)

        puppet.fetch = read_slowly  # type: ignore[method-assign]
        MemoryWriter(puppet).update(key, name="new")
        puppet.told.put_nowait(Changed(frozenset({key})))
        await reading.wait()
        await until(lambda: key in database.comparison._suspects)
        await asyncio.sleep(0.2)
        assert holds(database, study(1))
        gate.set()
        await passes.whole()
        assert holds(database, study(1, "new"))
        assert database.comparison.missed == 0


async def test_what_this_server_writes_is_not_missed(backend: ResultsBackend) -> None:
    """A mutation of several steps reads back at its end what it wrote, however long that takes."""
    async with compared(backend, study(1), study(2)) as (database, passes):
        work = database.unit()
        await database.studies.delete(uid(1), unit=work)
        await database.studies.create("new", unit=work)
        await passes.whole()
        assert {record.name for record in database.read_model.studies} == {"study_2", "new"}
        await work.finish()
        await passes.whole()
        assert database.comparison.missed == 0


async def test_where_changes_are_polled_for_nothing_is_missed(redis_server: RedisServer) -> None:
    """A Redis that refuses to tell of changes is listed again and again: that finds them first."""
    with redis_server.client() as client, closing(RedisWriter(redis_server.url)) as writer:
        client.acl_setuser(
            "deaf", enabled=True, passwords=["+secret"], keys="*", commands=["+@all", "-client|tracking"]
        )
        try:
            url = redis_server.url_for("deaf", "secret")
            backend = make_backend(url, BackendOptions(poll_interval=0.1))
            async with opened(backend, compare_interval=SHORT) as database:
                for number in range(8):
                    writer.create(run(number))
                    await until(lambda n=number: database.read_model.runs.get(uid(n)))  # type: ignore[misc]
                    await asyncio.sleep(0.05)
                assert database.comparison.missed == 0
        finally:
            client.acl_deluser("deaf")
