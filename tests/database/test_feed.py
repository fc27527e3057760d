"""The copy follows the store: whatever happens to the one is soon in the other."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.database.backends.base import Notice, Progress, Reload, no_progress
from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import BackendError, BackendUnavailableError
from server.database.merlin_database import opened
from server.database.models import Entry, Key, Model
from server.database.read_model import Change
from tests.conftest import Store
from tests.support.feeds import DEADLINE, RUN, STUDY, contents, holds, name, owner, served, until
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.writers import SQLiteWriter, Writer, key_of, merlins_file

pytestmark = pytest.mark.anyio


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    with closing(store.writer()) as writer:
        if isinstance(writer, SQLiteWriter):
            merlins_file(writer.path)
        yield writer


# On every store


async def test_what_others_change_is_soon_here(store: Store, writer: Writer) -> None:
    """Records that another process creates, updates, renames and deletes are soon here; `pytest -rP` tells how soon."""
    async with served(store.url) as database:
        latencies = []
        for number in range(5):
            writer.create(study(number))
            latencies.append(await until(lambda n=number: name(database, n)))  # type: ignore[misc]  # its default
            writer.save(study(number, f"renamed_{number}"))
            latencies.append(await until(lambda n=number: database.read_model.studies.named(f"renamed_{n}")))  # type: ignore[misc]
            assert database.read_model.studies.named(f"study_{number}") is None
            writer.update(Key(STUDY, uid(number)), additional_data='{"a": 1}')
            latencies.append(await until(lambda n=number: database.read_model.studies.records[uid(n)].additional_data))  # type: ignore[misc]
            writer.delete(Key(STUDY, uid(number)))
            latencies.append(await until(lambda n=number: name(database, n) is None))  # type: ignore[misc]
        assert holds(database)
    print(f"from change to copy: {1000 * statistics.median(latencies):.1f} ms, at most {1000 * max(latencies):.1f} ms")


async def test_every_kind_is_followed(store: Store, writer: Writer) -> None:
    """Each of the four kinds comes and goes."""
    records = (study(1), run(2), logical_worker("worker"), physical_worker(3))
    async with served(store.url) as database:
        for record in records:
            writer.create(record)
        await until(lambda: holds(database, *records))
        writer.delete(*(key_of(record) for record in records))
        await until(lambda: holds(database))


async def test_many_changes_of_one_key_end_in_the_last(store: Store, writer: Writer) -> None:
    """However quickly a record changes, the copy ends with its last value."""
    writer.create(study(1))
    async with served(store.url) as database:
        revision = database.revision

        def change() -> None:
            for number in range(500):
                writer.update(Key(STUDY, uid(1)), name=f"name_{number}")

        await asyncio.to_thread(change)
        await until(lambda: name(database, 1) == "name_499")
        assert database.revision - revision <= 500


async def test_what_changes_during_the_first_list_is_not_lost(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that change between two batches of the first load are right in the end."""
    many = [run(number) for number in range(1200)]
    writer.create(*many)
    backend = make_backend(store.url, BackendOptions())
    load = backend.load
    expected: dict[Key, Model | None] = {key_of(record): record for record in many}

    async def load_amid_changes(progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        number = 5000
        async for batch in load(progress):
            yield batch
            if len(batch) < 4:
                continue
            updated, deleted = batch[0].key, batch[-1].key
            writer.update(updated, workspace=f"/moved/{number}")
            writer.delete(deleted)
            number += 1
            writer.create(run(number))
            record = batch[0].record
            assert record is not None
            expected[updated] = run(int(updated.id[-12:]), f"/moved/{number - 1}")
            del expected[deleted]
            expected[Key(RUN, uid(number))] = run(number)

    monkeypatch.setattr(backend, "load", load_amid_changes)
    async with opened(backend) as database:
        assert len(expected) == 1200
        await until(lambda: contents(database) == expected)


async def test_a_flush_is_seen(store: Store, writer: Writer) -> None:
    """When everything is thrown away the copy is empty, and follows what comes next."""
    writer.create(study(1), run(2))
    async with served(store.url) as database:
        assert holds(database, study(1), run(2))
        writer.flush()
        await until(lambda: holds(database))
        if isinstance(writer, SQLiteWriter):
            merlins_file(writer.path)
        writer.create(study(3))
        await until(lambda: holds(database, study(3)))
        assert database.stale_since is None


async def test_changes_are_told_to_listeners(store: Store, writer: Writer) -> None:
    """A listener hears of every step, with a revision that counts up."""
    told: list[tuple[int, Change]] = []
    async with served(store.url) as database:
        database.read_model.listen(lambda revision, changes: told.extend((revision, change) for change in changes))
        key = Key(STUDY, uid(1))
        writer.create(study(1))
        await until(lambda: len(told) == 1)
        writer.update(key, name="new")
        await until(lambda: len(told) == 2)
        writer.delete(key)
        await until(lambda: len(told) == 3)
    assert [change for _, change in told] == [
        Change(key, None, study(1)),
        Change(key, study(1), study(1, "new")),
        Change(key, study(1, "new"), None),
    ]
    assert [revision for revision, _ in told] == sorted({revision for revision, _ in told})


async def test_a_refresh_returns_when_the_value_is_in(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refresh the copy has what was written before it, without any notice."""
    backend = make_backend(store.url, BackendOptions())

    async def deaf() -> AsyncGenerator[Notice]:
        yield Reload()
        await asyncio.Event().wait()

    monkeypatch.setattr(backend, "watch", deaf)
    async with opened(backend) as database:
        key = Key(STUDY, uid(1))
        for number in range(30):
            writer.save(study(1, f"name_{number}")) if number else writer.create(study(1, "name_0"))
            refreshes = [database.feed.refresh([key, Key(RUN, uid(n))]) for n in range(number % 3)]
            await asyncio.gather(database.feed.refresh([key]), *refreshes)
            assert name(database, 1) == f"name_{number}"
        writer.delete(key)
        await database.feed.refresh([key])
        assert holds(database)


async def test_nothing_is_left_behind(store: Store, writer: Writer) -> None:
    """After the end there is no task, no thread of ours and no open file or socket more than before."""
    writer.create(study(1))
    tasks, files = asyncio.all_tasks(), open_files()
    async with served(store.url) as database:
        writer.update(Key(STUDY, uid(1)), name="new")
        await until(lambda: name(database, 1) == "new")
        assert len(asyncio.all_tasks()) > len(tasks)
    assert asyncio.all_tasks() == tasks
    gc.collect()  # what is still open would warn now
    assert open_files() == files


def open_files() -> list[str]:
    """Sockets and database files of this process; nothing where that can't be asked."""
    names = []
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            names.append(str(descriptor.readlink()))
        except OSError:
            continue
    return sorted(found for found in names if found.startswith("socket:") or "merlin.db" in found)


async def test_of_duplicates_the_one_that_merlin_finds_is_found(store: Store, writer: Writer) -> None:
    """Two studies of one name: the copy finds the one that Merlin finds, also when one of them goes."""
    async with served(store.url) as database:
        writer.create(study(1, "twin"))
        writer.create(study(2, "twin"))
        merlins = uid(2) if store.kind == "redis" else uid(1)  # the map holds the last, the table begins with the first
        await until(lambda: owner(database) == merlins)
        async with served(store.url) as another:
            assert owner(another) == merlins
        writer.delete(Key(STUDY, merlins))
        await until(lambda: owner(database) == {uid(1): uid(2), uid(2): uid(1)}[merlins])


# SQLite


WRITES = """
import sqlite3, sys, uuid
connection = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
print("ready", flush=True)
for line in sys.stdin:
    connection.execute(line)
    print("done", flush=True)
"""


async def test_another_process_is_followed_under_wal(tmp_path: Path) -> None:
    """Every write of a second process, whose connection stays open, is seen; the log stays meanwhile."""
    path = tmp_path / "merlin.db"
    merlins_file(path).create(study(1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITES, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    async with served(f"sqlite:///{path}") as database:
        for number in range(5):
            process.stdin.write(f"UPDATE study SET name = 'name_{number}'\n".encode())
            assert await process.stdout.readline() == b"done\n"
            await until(lambda n=number: name(database, 1) == f"name_{n}")  # type: ignore[misc]
        assert path.with_name("merlin.db-wal").exists()
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), DEADLINE) == 0


async def test_changes_that_are_undone_soon_leave_no_trace(tmp_path: Path) -> None:
    """A record that is seen between two looks, and is as before at the second, ends as it was: new, changed or gone."""
    path = tmp_path / "merlin.db"
    writer = merlins_file(path)
    writer.create(study(1), study(2))
    async with served(f"sqlite:///{path}") as database:
        keys = [Key(STUDY, uid(number)) for number in (1, 2, 3)]
        for _ in range(5):
            writer.update(keys[0], name="passing")
            writer.delete(keys[1])
            writer.create(study(3))
            await database.feed.refresh(keys)
            assert holds(database, study(1, "passing"), study(3))
            writer.update(keys[0], name="study_1")
            writer.create(study(2))
            writer.delete(keys[2])
            await until(lambda: holds(database, study(1), study(2)))


async def test_what_we_wrote_ourselves_and_others_undo_is_seen(tmp_path: Path) -> None:
    """Our own writes are not told to us; what others make of them later is."""
    path = tmp_path / "merlin.db"
    writer = merlins_file(path)
    async with served(f"sqlite:///{path}") as database:
        await database.backend.insert([study(1)])
        await database.feed.refresh([Key(STUDY, uid(1))])
        assert holds(database, study(1))
        writer.delete(Key(STUDY, uid(1)))
        await until(lambda: holds(database))


async def test_a_replaced_file_is_followed(tmp_path: Path) -> None:
    """Another file in the place of the first is stale for a moment, and then the one that is served."""
    path, other = tmp_path / "merlin.db", tmp_path / "other.db"
    merlins_file(path).create(study(1))
    merlins_file(other).create(study(2))
    async with served(f"sqlite:///{path}") as database:
        for file in tmp_path.glob("merlin.db-*"):
            file.unlink()
        other.rename(path)
        with pytest.raises(BackendUnavailableError):
            await database.feed.refresh([Key(STUDY, uid(1))])
        assert database.stale_since is not None
        await until(lambda: holds(database, study(2)))
        await until(lambda: database.stale_since is None)
        SQLiteWriter(path).create(study(3))
        await until(lambda: holds(database, study(2), study(3)))


async def test_rows_that_only_move_change_nothing(tmp_path: Path) -> None:
    """A vacuum numbers the rows anew, and no listener hears of it."""
    path = tmp_path / "merlin.db"
    writer = merlins_file(path)
    writer.create(*(study(number) for number in range(100)))
    async with served(f"sqlite:///{path}") as database:
        told: list[Change] = []
        database.read_model.listen(lambda _, changes: told.extend(changes))
        writer.delete(Key(STUDY, uid(1)))
        writer.run("VACUUM")
        writer.create(study(200))
        await until(lambda: name(database, 200))
        assert {change.key for change in told} == {Key(STUDY, uid(1)), Key(STUDY, uid(200))}


async def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """A start on a foreign file raises, and leaves no task behind."""
    path = tmp_path / "merlin.db"
    path.write_text("no database at all, but long enough to be one" * 50)
    tasks = asyncio.all_tasks()
    with pytest.raises(BackendError):
        async with served(f"sqlite:///{path}"):
            pass
    assert asyncio.all_tasks() == tasks
