"""A backup is put in the place of an SQLite file, in every way and at any time: nothing of the old file reaches it."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from server.database.backends import sqlite as sqlite_backend
from server.database.backends.base import Alive, Changed, Reload
from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions
from server.database.backends.sqlite_file import FileState, SQLiteFile
from server.database.backends.sqlite_writer import write
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendUnavailableError, UnknownOutcomeError
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Key, Model, StudyModel
from tests.support.backends import next_of, open_backend
from tests.support.feeds import contents, holds, served, until
from tests.support.merlin_process import Merlin
from tests.support.records import study
from tests.support.writers import SQLiteWriter, merlins_file

pytestmark = pytest.mark.anyio

OLD = [study(number) for number in range(1, 400)]
"""More pages than a backup has: a copy onto the file that makes it no smaller looks like a commit."""
BACKUP = [study(number, f"restored {number}") for number in range(300, 310)]
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("SELECT count(*) FROM study").fetchall()
print(flush=True)
sys.stdin.read()
"""

Replace = Callable[[Path], None]


def backup_beside(path: Path) -> Path:
    backup = path.with_name("backup.db")
    merlins_file(backup).create(*BACKUP)
    return backup


def move(path: Path) -> None:
    """`mv backup.db merlin.db`."""
    backup_beside(path).replace(path)


def copy(path: Path) -> None:
    """`cp backup.db merlin.db`."""
    shutil.copyfile(backup_beside(path), path)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def delete(path: Path) -> None:
    path.unlink()


WAYS: dict[Replace, list[StudyModel]] = {move: BACKUP, copy: BACKUP, truncate: [], delete: []}
"""What stands there after each."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def merlin(home: Path) -> Iterator[Merlin]:
    with Merlin(home) as merlin:
        merlins_file(merlin.database_file)
        merlin.dump()
        yield merlin


@pytest.fixture
def path(merlin: Merlin) -> Path:
    """Merlin's file, with a content."""
    for file in merlin.database_file.parent.glob("*.db*"):
        file.unlink()
    merlins_file(merlin.database_file).create(*OLD)
    return merlin.database_file


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.1)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Replace:
    way: Replace = request.param
    return way


@contextmanager
def held_by_merlin(path: Path) -> Iterator[None]:
    """A process has the file open meanwhile, by a connection as Merlin's."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.communicate()


async def told_and_over(database: MerlinDatabase, path: Path) -> None:
    """`stale_since` is told, and null again once there is a file to read: where none is left, Merlin makes one."""
    await until(lambda: database.stale_since is not None)
    await over(database, path)


async def over(database: MerlinDatabase, path: Path) -> None:
    if not path.exists() or not path.stat().st_size:
        merlins_file(path)
    await until(lambda: database.stale_since is None)


async def check(database: MerlinDatabase, merlin: Merlin, *expected: Model) -> None:
    """The server, Merlin and SQLite find the same, and nothing is left beside the file."""
    await until(lambda: holds(database, *expected))
    with closing(sqlite3.connect(merlin.database_file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert read_by(merlin) == {record.id: record.name for record in expected if isinstance(record, StudyModel)}
    await until(lambda: not list(merlin.database_file.parent.glob("merlin.db-*")))


def read_by(merlin: Merlin) -> dict[str, str]:
    return {record["id"]: record["name"] for record in merlin.dump()["study"]}


async def created(database: MerlinDatabase, name: str) -> StudyModel:
    """A study that is acknowledged and stands there, whenever that is."""
    while True:
        with suppress(BackendUnavailableError, UnknownOutcomeError):
            await database.studies.create(name)
            found = database.read_model.studies.named(name)
            if found is not None:  # else it went into a file that was replaced right after
                return found
        await asyncio.sleep(0.01)


async def test_a_file_that_nobody_uses_has_no_log(path: Path) -> None:
    """Between its reads and writes a server has the file not open, and leaves nothing beside it."""
    async with served(f"sqlite:///{path}") as database:
        await created(database, "ours")
        SQLiteWriter(path).create(study(900))
        await until(lambda: len(contents(database)) == len(OLD) + 2)
        await until(lambda: not list(path.parent.glob("merlin.db-*")))
        assert not [link for link in Path("/proc/self/fd").iterdir() if target(link).startswith(str(path))]


def target(link: Path) -> str:
    with suppress(FileNotFoundError):
        return str(link.readlink())
    return ""


async def test_replaced_at_rest(path: Path, merlin: Merlin, way: Replace) -> None:
    """The new file is read, told as stale until then, and written to afterwards by both."""
    async with served(f"sqlite:///{path}") as database:
        await created(database, "lost with the old file")
        way(path)
        await told_and_over(database, path)
        ours = await created(database, "ours")
        merlin.call("studies.create", "merlins")
        await until(lambda: len(contents(database)) == len(WAYS[way]) + 2)
        theirs = database.read_model.studies.named("merlins")
        assert theirs is not None
        await check(database, merlin, *WAYS[way], ours, theirs)


async def test_replaced_in_a_write(path: Path, merlin: Merlin, way: Replace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that was begun in the old file is refused or made in the new one, never in both."""
    waiting = [way]

    def write_meanwhile(*args: Any, **kwargs: Any) -> None:
        if waiting:
            waiting.pop()(path)
        write(*args, **kwargs)

    async with served(f"sqlite:///{path}") as database:
        monkeypatch.setattr("server.database.backends.sqlite.write", write_meanwhile)
        creating = asyncio.create_task(created(database, "ours"))
        await told_and_over(database, path)
        ours = await creating
        await check(database, merlin, *WAYS[way], ours)


async def test_replaced_while_merlin_has_it_open(path: Path, merlin: Merlin, way: Replace) -> None:
    """What Merlin has open holds nothing of ours: no log of the old file comes to the new one."""
    async with served(f"sqlite:///{path}") as database:
        with held_by_merlin(path):
            await created(database, "lost with the old file")
            way(path)
            await until(lambda: database.stale_since is not None)
        await over(database, path)  # while it is open, nobody can make a database of an emptied file
        ours = await created(database, "ours")
        await until(lambda: holds(database, *WAYS[way], ours))
        for beside in path.parent.glob("merlin.db-*"):
            assert beside.suffix != ".db-wal" or not beside.stat().st_size
        await check(database, merlin, *WAYS[way], ours)


async def test_replaced_under_a_server_that_only_reads(path: Path, merlin: Merlin, way: Replace) -> None:
    """It makes nothing beside the file, before and after."""
    async with served(f"sqlite:///{path}", BackendOptions(read_only=True)) as database:
        assert not list(path.parent.glob("merlin.db-*"))
        way(path)
        await told_and_over(database, path)
        SQLiteWriter(path).create(study(900))
        await check(database, merlin, *WAYS[way], study(900))


async def test_a_missing_file_is_not_made_by_a_mutation(path: Path) -> None:
    """Without its file a mutation is refused, and the copy answers."""
    async with served(f"sqlite:///{path}") as database:
        delete(path)
        with pytest.raises(BackendUnavailableError):
            await database.studies.create("nowhere")
        await until(lambda: database.stale_since is not None)
        assert len(contents(database)) == len(OLD)
        assert not path.exists()


async def test_an_emptied_file_is_waited_for(path: Path) -> None:
    """`cp` empties a file before it fills it: that is not taken for a deletion of all records."""
    async with served(f"sqlite:///{path}") as database:
        backup = backup_beside(path).read_bytes()
        seen: list[int] = []
        database.read_model.listen(lambda _revision, _changes: seen.append(len(contents(database))))
        with path.open("wb") as file:
            await until(lambda: database.stale_since is not None)
            file.write(backup[: len(backup) // 2])
            file.flush()
            await asyncio.sleep(0.3)  # several looks at half a file
            file.write(backup[len(backup) // 2 :])
        await until(lambda: holds(database, *BACKUP))
        assert min(seen) == len(BACKUP)


async def test_a_copy_that_makes_the_file_larger_is_told(path: Path, merlin: Merlin) -> None:
    """A backup by SQLite itself has a lower number of its schema than the file that it replaces."""
    more = [study(number) for number in range(1, 900)]
    source = path.with_name("source.db")
    merlins_file(source).create(*more)
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(backup)) as writer:
        reader.backup(writer)
    async with served(f"sqlite:///{path}") as database:
        assert backup.stat().st_size > path.stat().st_size
        shutil.copyfile(backup, path)
        await told_and_over(database, path)
        await check(database, merlin, *more)


async def test_a_vacuum_is_no_replacement(path: Path) -> None:
    """It makes the file smaller, and is read as any other write."""
    async with open_backend(f"sqlite:///{path}") as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        [_ async for _ in backend.load()]
        before = path.stat().st_size
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("DELETE FROM study WHERE rowid > 1")
            other.execute("VACUUM")
        assert path.stat().st_size < before
        async for notice in notices:
            if not isinstance(notice, Alive):
                assert isinstance(notice, Changed)
                assert len(notice.keys) == len(OLD) - 1
                break


def addition(record: StudyModel) -> WriteSet:
    key = Key(EntityKind.STUDY, record.id)
    return WriteSet("ours", {key: None}, owners={}, written={key: encode(record)}, deleted=frozenset(), names={})


async def test_what_is_committed_is_not_called_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of somebody else right after the commit makes no refusal of it."""

    def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    async with open_backend(f"sqlite:///{path}") as backend:
        monkeypatch.setattr(SQLiteFile, "_end_state", locked)
        assert await backend.commit(addition(study(900)))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM study WHERE id = ?", (study(900).id,)).fetchone() == (1,)


async def test_a_commit_that_is_copied_over_is_unknown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can say whether the copy came before or after it."""
    end_state = SQLiteFile._end_state

    def emptied(file: SQLiteFile, known: FileState, start: FileState) -> FileState:
        os.truncate(path, 0)
        return end_state(file, known, start)

    async with open_backend(f"sqlite:///{path}") as backend:
        monkeypatch.setattr(SQLiteFile, "_end_state", emptied)
        with pytest.raises(UnknownOutcomeError, match="check before you try again"):
            await backend.commit(addition(study(900)))


@pytest.mark.soak
async def test_replaced_at_any_time(path: Path, merlin: Merlin) -> None:
    """Moved into place again and again under writes by the server and by others: each time all agree afterwards."""
    chance = random.Random(16)
    async with served(f"sqlite:///{path}") as database:
        for round_ in range(200):
            acknowledged: dict[str, float] = {}
            stopped = asyncio.Event()
            writing = asyncio.create_task(write_on(database, chance, f"study of {round_}", acknowledged, stopped))
            await asyncio.sleep(chance.uniform(0, 0.3))
            await asyncio.to_thread(move, path)
            replaced = time.monotonic()
            await told_and_over(database, path)
            await asyncio.to_thread(SQLiteWriter(path).create, study(1000 + round_))
            await asyncio.sleep(chance.uniform(0, 0.1))
            stopped.set()
            await writing
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            names = read_by(merlin)
            assert {id_ for id_, begun in acknowledged.items() if begun > replaced} <= names.keys()
            await until(lambda names=names: names == names_of(database))  # type: ignore[misc]  # bound at once


def names_of(database: MerlinDatabase) -> dict[str, str]:
    return {record.id: record.name for record in contents(database).values() if isinstance(record, StudyModel)}


async def write_on(
    database: MerlinDatabase, chance: random.Random, name: str, acknowledged: dict[str, float], stopped: asyncio.Event
) -> None:
    number = itertools.count()
    while not stopped.is_set():
        begun = time.monotonic()
        record = await created(database, f"{name} {next(number)}")
        acknowledged[record.id] = begun
        await asyncio.sleep(chance.uniform(0, 0.02))
