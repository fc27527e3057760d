"""When the comparison goes on, how it is spread, and how it scans a store."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Collection
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from server.database.backends.base import Changed, Lost, Reload, ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.backends.portions import SCAN_BATCH, portions
from server.database.backends.redis import RedisBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.errors import BackendError, BackendUnavailableError
from server.database.merlin_database import opened
from server.database.models import Entry, Key, Model
from tests.support.comparison import STUDY, MemoryWriter, Puppet, compared, holds, own_lines, until
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import Writer

pytestmark = pytest.mark.anyio


# When it goes on, and how


async def test_a_pass_is_spread_over_its_interval() -> None:
    """Some batches at a time, so that the last are read near its end; the next pass begins after it."""
    puppet = Puppet()
    await puppet.insert([run(number) for number in range(12 * SCAN_BATCH)])
    began = time.monotonic()
    async with compared(puppet, interval=0.6):
        await until(lambda: len(puppet.batches) > 12)
    for number in (4, 8, 12):
        assert puppet.batches[number] - began >= 0.6 * number / 12 - 0.01


async def test_an_empty_database_is_compared_no_more_often() -> None:
    """Nothing to do is no reason to do it without a pause."""
    puppet = Puppet()
    began = time.monotonic()
    async with compared(puppet, interval=0.1):
        await until(lambda: puppet.scans == 3)
        assert time.monotonic() - began >= 0.19


@pytest.mark.parametrize("why", ["lost", "reload"])
async def test_it_rests_while_everything_is_to_be_read(why: str) -> None:
    """While the database is lost, and until everything was read again; then it goes on."""
    puppet = Puppet()
    await puppet.insert([run(number) for number in range(12 * SCAN_BATCH)])
    async with compared(puppet, deaf=False, interval=0.3) as (database, passes):
        await until(lambda: puppet.batches)
        puppet.gate.clear()
        puppet.told.put_nowait(Lost("gone.") if why == "lost" else Reload())
        await until(lambda: not database.feed.settled.is_set())
        await asyncio.sleep(0.01)  # the step under way may end
        batches = len(puppet.batches)
        await asyncio.sleep(0.4)
        assert len(puppet.batches) == batches
        if why == "lost":
            puppet.told.put_nowait(Reload())
        puppet.gate.set()
        await passes.whole()
        assert database.stale_since is None


@pytest.mark.parametrize("failure", [BackendUnavailableError("gone."), RuntimeError("a bug")])
async def test_a_pass_that_fails_is_followed_by_another(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Be it the store or a bug: it is logged, and what was missed is found later."""
    puppet = Puppet()
    await puppet.insert([study(1)])
    async with compared(puppet) as (database, passes):
        puppet.failure = failure
        await until(lambda: len(own_lines(caplog)) >= 2)
        ended = passes.ended
        MemoryWriter(puppet).create(study(2))
        puppet.failure = None
        await passes.whole()
        assert holds(database, study(1), study(2))
        assert ended < passes.ended
    assert all(line.startswith("Comparing the copy with the database ") for line in own_lines(caplog)[:2])


async def test_a_read_that_fails_makes_no_pass_fail_for_good() -> None:
    """What differs can't be read again just now: the feed says so, reads everything, and comparing goes on."""
    puppet = Puppet()
    await puppet.insert([study(1)])
    async with compared(puppet) as (database, passes):
        fetch, failures = puppet.fetch, 0

        async def fail(keys: Collection[Key]) -> list[Entry]:
            nonlocal failures
            if failures < 2 and set(keys) == {Key(STUDY, uid(2))}:
                failures += 1
                raise BackendUnavailableError("gone.")
            return await fetch(keys)

        puppet.fetch = fail  # type: ignore[method-assign]
        MemoryWriter(puppet).create(study(2))
        await passes.whole()
        await until(lambda: holds(database, study(1), study(2)) and database.stale_since is None)


async def test_off_it_costs_nothing() -> None:
    """With 0 there is no task, nothing is scanned, and nothing hears the notices."""
    puppet = Puppet()
    tasks = len(asyncio.all_tasks())
    async with compared(puppet, study(1), deaf=False, interval=0.0) as (database, _):
        assert (
            len(asyncio.all_tasks()) == tasks + 5
        )  # two of the feed; those that sweep annotations, share the revision, and hash
        puppet.told.put_nowait(Changed(frozenset({Key(STUDY, uid(1))})))
        await until(puppet.told.empty)
        assert puppet.scans == 0
        assert database.comparison._noticed_kinds == set()


async def test_it_ends_with_the_database(backend: ResultsBackend) -> None:
    """Wherever in a pass that is; no task is left."""
    await backend.insert([run(number) for number in range(2 * SCAN_BATCH)])
    tasks = asyncio.all_tasks()
    for pause in (0.0, 0.001, 0.003, 0.01, 0.03):
        copy = backend if isinstance(backend, MemoryBackend) else make_backend(backend.connection, BackendOptions())
        async with compared(copy, interval=1.0 if pause else 60.0):
            await asyncio.sleep(pause)
        assert asyncio.all_tasks() == tasks


# A scan of a store


async def test_a_scan_finds_what_a_load_finds(backend: ResultsBackend, writer: Writer) -> None:
    """Every record once, in small batches, with a progress that ends at its total."""
    records: list[Model] = [
        *(run(number) for number in range(3 * SCAN_BATCH)),
        study(1),
        logical_worker("w"),
        physical_worker(1),
    ]
    await backend.insert(records)
    writer.update(Key(STUDY, uid(1)), additional_data="no JSON")
    seen: list[tuple[int, int]] = []
    batches = [batch async for batch in backend.scan(lambda *counts: seen.append(counts))]
    assert max(map(len, batches)) <= SCAN_BATCH
    scanned = [entry for batch in batches for entry in batch]
    assert sorted(scanned, key=lambda it: it.key) == sorted(
        [entry async for batch in backend.load() for entry in batch], key=lambda it: it.key
    )
    assert seen[-1][0] == seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


async def test_nothing_is_scanned_of_an_empty_store(backend: ResultsBackend) -> None:
    """No entry comes, and it ends."""
    assert [entry async for batch in backend.scan() for entry in batch] == []


async def test_a_closed_store_is_an_error(tmp_path: Path) -> None:
    """A scan raises what everything else raises."""
    backend = SQLiteBackend(f"sqlite:///{tmp_path}/merlin.db")
    with pytest.raises(BackendError):
        _ = [batch async for batch in backend.scan()]


async def test_between_two_batches_a_file_is_free(tmp_path: Path) -> None:
    """Others may write and truncate the log of their writes, and what they write is told of."""
    backend = SQLiteBackend(f"sqlite:///{tmp_path}/merlin.db")
    await backend.open()
    await backend.insert([run(number) for number in range(3 * SCAN_BATCH)])
    async with opened(backend) as database, aclosing(backend.scan()) as batches:
        await anext(batches)
        with closing(sqlite3.connect(backend.path, timeout=0, isolation_level=None)) as connection:
            connection.execute("UPDATE run SET workspace = '/moved' WHERE id = ?", (uid(1),))
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        await until(lambda: database.read_model.runs.records[uid(1)].workspace == "/moved")
        assert sum([len(batch) async for batch in batches]) == 2 * SCAN_BATCH


async def test_between_two_batches_no_connection_is_held(redis_server: RedisServer) -> None:
    """All of them are free for others, and have nothing left to read."""
    backend = make_backend(redis_server.url, BackendOptions())
    assert isinstance(backend, RedisBackend)
    await backend.open()
    await backend.insert([run(number) for number in range(3 * SCAN_BATCH)])
    pool = backend._client.connection_pool
    async for _ in backend.scan():
        assert pool._in_use_connections == set()
        assert [await connection.can_read() for connection in pool._available_connections] == [False]
    await backend.close()


async def test_keys_of_others_are_scanned_as_slowly(redis_server: RedisServer) -> None:
    """Pages without a record are batches, too: without them nobody could pause."""
    backend = make_backend(redis_server.url, BackendOptions())
    await backend.open()
    with redis_server.client() as client:
        client.mset({f"celery-task-meta-{number}": "" for number in range(10_000)})
    assert len([batch async for batch in backend.scan()]) >= 4
    await backend.close()


def test_long_records_are_few_in_a_portion() -> None:
    """No portion is longer than what takes some milliseconds, unless it is a single record; none is lost."""
    lengths = [10, 200_000, 60_000, 60_000, 10, 10, 40_000]
    assert list(portions(lengths, lambda length: length)) == [
        [10],
        [200_000],
        [60_000],
        [60_000, 10, 10],
        [40_000],
    ]
    assert list(portions([], len)) == []
