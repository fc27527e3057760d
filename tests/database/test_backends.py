"""Every store behaves alike, and each is read as Merlin leaves it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime

import pytest

from server.database.backends.base import Changed, Reload, ResultsBackend
from server.database.backends.memory import MemoryBackend
from server.database.models import EntityKind, Key, Model, RunStatus, WorkerStatus
from tests.support.backends import RUN, STUDY, by_key, next_of, open_backend, read, records, within
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.writers import key_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def another(backend: ResultsBackend) -> AsyncIterator[ResultsBackend]:
    """A second backend on the same store; memory can't have one."""
    if isinstance(backend, MemoryBackend):
        yield backend
        return
    async with open_backend(backend.connection) as second:
        yield second


ONE_OF_EACH: tuple[Model, ...] = (
    study(1, "123", runs=(uid(2), uid(2)), additional_data={"a": [1, None, "ü"]}),
    run(
        2,
        "/w/ünïcode 🜁\n\t'\"_20260102-030405",
        study_id=uid(1),
        steps=("step_1",),
        queues=("[merlin]_q", ""),
        workers=(uid(9),),
        parent=uid(7),
        child=uid(8),
        run_status=RunStatus.CANCELLED,
        parameters={"GREET": {"values": [1.5, True]}},
        samples={"nested": [[], {}]},
    ),
    logical_worker("worker", ("[merlin]_b", "[merlin]_a"), runs=(uid(2),), physical_workers=(uid(5), uid(5))),
    physical_worker(
        5,
        "celery@worker.%node1",
        logical_worker_id=uid(4),
        launch_cmd="celery -A merlin worker",
        args={"concurrency": 4},
        pid="4242",
        worker_status=WorkerStatus.STALLED,
        heartbeat_timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901),
        latest_start_time=datetime(2026, 1, 2, 3, 4, 5),
        host="node1",
        restart_count=3,
    ),
    study(11, "null"),
    run(12, "None"),
    physical_worker(15, "[x", args="-c 4"),
)


async def test_records_are_read_as_they_were_inserted(backend: ResultsBackend) -> None:
    """Records of each kind come back equal, by load and by fetch, whatever their texts look like."""
    await backend.insert(ONE_OF_EACH)
    expected = by_key(*ONE_OF_EACH)
    assert await records(backend) == expected
    entries = await backend.fetch(list(expected))
    assert {entry.key: entry.record for entry in entries} == expected
    assert not any(entry.problems for entry in entries)


async def test_an_empty_store_holds_nothing(backend: ResultsBackend) -> None:
    """A load of nothing ends at once."""
    assert await read(backend) == {}


async def test_absent_keys_are_said_to_be_absent(backend: ResultsBackend) -> None:
    """A fetch answers for every key, and only for those that were asked for."""
    await backend.insert([study(1), study(2), run(3)])
    keys = [Key(STUDY, uid(1)), Key(STUDY, uid(3)), Key(RUN, uid(3)), Key(RUN, "no uuid")]
    fetched = {entry.key: entry.record for entry in await backend.fetch(keys)}
    assert fetched == {keys[0]: study(1), keys[1]: None, keys[2]: run(3), keys[3]: None}
    assert await backend.fetch([]) == []


async def test_more_records_than_a_batch_are_all_read(backend: ResultsBackend) -> None:
    """Many records come in several batches, each once, and the progress ends at the end."""
    many = [run(number) for number in range(1234)]
    await backend.insert(many)
    seen: list[tuple[int, int]] = []
    batches = [batch async for batch in backend.load(lambda done, total: seen.append((done, total)))]
    assert len(batches) > 1
    assert sorted(entry.key for batch in batches for entry in batch) == sorted(map(key_of, many))
    assert seen == sorted(seen)
    done, total = seen[-1]
    assert done == total
    fetched = await backend.fetch([key_of(record) for record in many])
    assert {entry.key: entry.record for entry in fetched} == by_key(*many)


async def test_names_lead_to_ids(backend: ResultsBackend) -> None:
    """The owner of a name is found per kind; a name that nobody has is left out."""
    await backend.insert(
        [study(1, "hello"), run(2, "/w/hello"), physical_worker(3, "celery@hello.host"), study(4, "ü")]
    )
    await backend.insert([logical_worker("hello")])
    assert await backend.name_owners(STUDY, ["hello", "bye", "ü"]) == {"hello": uid(1), "ü": uid(4)}
    assert await backend.name_owners(RUN, ["hello", "/w/hello"]) == {"/w/hello": uid(2)}
    assert await backend.name_owners(EntityKind.PHYSICAL_WORKER, ["celery@hello.host"]) == {"celery@hello.host": uid(3)}
    assert await backend.name_owners(EntityKind.LOGICAL_WORKER, ["hello"]) == {}
    assert await backend.name_owners(STUDY, []) == {}


async def test_a_store_says_what_it_is(backend: ResultsBackend) -> None:
    """Kind, version and connection are words to be shown."""
    version, kind = await backend.get_version(), backend.kind
    if kind == "redis":
        assert version.startswith(("Redis 7.", "Valkey 9."))
    else:
        assert version == {"sqlite": f"SQLite {sqlite3.sqlite_version}", "memory": "in this process"}[kind]
    assert backend.connection.startswith(f"{kind}://")


async def test_a_watch_begins_with_reload(backend: ResultsBackend) -> None:
    """The first notice says that everything is to be read."""
    async with aclosing(backend.watch()) as notices:
        assert await within(anext(notices)) == Reload()


async def test_a_watch_tells_of_what_others_write(backend: ResultsBackend) -> None:
    """A record that another writes is named in a notice."""
    async with aclosing(backend.watch()) as notices, another(backend) as other:
        await next_of(notices, Reload)
        await other.insert([study(1), run(2)])
        told: set[Key] = set()
        while told < {Key(STUDY, uid(1)), Key(RUN, uid(2))}:
            told |= (await next_of(notices, Changed)).keys
        assert told == {Key(STUDY, uid(1)), Key(RUN, uid(2))}


async def test_two_watches_are_both_told(backend: ResultsBackend) -> None:
    """A second watch takes nothing from the first."""
    async with (
        aclosing(backend.watch()) as first,
        another(backend) as other,
        aclosing(other.watch()) as second,
        another(backend) as third,
    ):
        await next_of(first, Reload)
        await next_of(second, Reload)
        await third.insert([study(1)])
        for notices in (first, second):
            await next_of(notices, Changed, lambda changed: Key(STUDY, uid(1)) in changed.keys)


async def test_a_watch_ends_with_its_task(backend: ResultsBackend) -> None:
    """A cancelled task leaves no watch behind, and the store can be used further."""
    begun = asyncio.Event()

    async def watch() -> None:
        async with aclosing(backend.watch()) as notices:
            async for _ in notices:
                begun.set()

    task = asyncio.create_task(watch())
    await within(begun.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await backend.insert([study(1)])
    assert await records(backend) == by_key(study(1))


async def test_a_store_is_written_to_while_it_is_read(backend: ResultsBackend) -> None:
    """A load that is under way keeps nobody from writing."""
    await backend.insert([run(number) for number in range(1100)])
    async with another(backend) as other:
        batches = aiter(backend.load())
        await anext(batches)
        await other.insert([study(1)])
        await backend.insert([study(2)])
        read_later = [entry.key async for batch in batches for entry in batch]
    assert len([key for key in read_later if key.kind is RUN]) >= 500
    assert {key.id for key in await records(backend) if key.kind is STUDY} == {uid(1), uid(2)}


async def test_closing_twice_is_closing(backend: ResultsBackend) -> None:
    """A closed backend can be closed again."""
    await backend.close()
    await backend.close()
