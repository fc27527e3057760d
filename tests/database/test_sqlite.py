"""SQLite: Merlin's own file, old ones, broken ones, and one that is replaced meanwhile."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from pathlib import Path

import pytest

from server.database.backends import sqlite as sqlite_backend
from server.database.backends.base import Changed, Lost, Reload
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.sqlite import SQLiteBackend
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.models import Entry, Key, RunStatus, WorkerStatus
from tests.support.backends import RUN, STUDY, by_key, next_of, open_backend, read, records, refusal
from tests.support.records import physical_worker, run, study, uid
from tests.support.writers import SQLiteWriter, merlins_file

pytestmark = pytest.mark.anyio


@contextmanager
def held(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Another connection in the middle of something."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


async def test_a_new_file_has_merlins_tables(path: Path) -> None:
    """A file that was not there is made with the tables and columns of Merlin, which then can use it."""
    async with open_backend(url_of(path)):
        pass
    merlins_file(path.with_name("reference.db"))
    assert columns(path) == columns(path.with_name("reference.db"))
    with held(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def columns(path: Path) -> dict[str, list[str]]:
    with held(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in sorted(names)}


async def test_a_relative_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes name a file from here, four one from the root, and `%` stands for what a URL can't hold."""
    monkeypatch.chdir(tmp_path)
    async with open_backend("sqlite:///here.db"), open_backend(f"sqlite:///{tmp_path}/a%23b%3Fc%25.db") as backend:
        await backend.insert([study(1)])
    assert {file.name for file in tmp_path.glob("*.db")} == {"here.db", "a#b?c%.db"}


async def test_merlins_own_file_is_read(path: Path) -> None:
    """The tables of 2.0.0b4, with their INTEGER column, are read and written as they are."""
    merlins_file(path).create(physical_worker(1, restart_count=2), run(2))
    async with open_backend(url_of(path)) as backend:
        await backend.insert([physical_worker(3, restart_count=5)])
        expected = by_key(physical_worker(1, restart_count=2), run(2), physical_worker(3, restart_count=5))
        assert await records(backend) == expected


async def test_an_older_file_is_read_in_its_dialect(path: Path) -> None:
    """A file with `run_complete` and `status` is read, and gets new records in its own words."""
    old = merlins_file(path, "1.13.0b1")
    old.create(run(1, run_status=RunStatus.COMPLETED), physical_worker(2, worker_status=WorkerStatus.RUNNING))
    async with open_backend(url_of(path)) as backend:
        await backend.insert([run(3, run_status=RunStatus.FAILED), physical_worker(4)])
        statuses = {
            record.id: getattr(record, "run_status", None) or getattr(record, "worker_status", None)
            for record in (await records(backend)).values()
            if record is not None
        }
    assert statuses == {
        uid(1): RunStatus.COMPLETED,
        uid(2): WorkerStatus.RUNNING,
        uid(3): RunStatus.COMPLETED,
        uid(4): WorkerStatus.STOPPED,
    }


async def test_of_repeated_ids_the_first_row_counts(path: Path) -> None:
    """Merlin reads the first row of an id; so it is here, and the others are a problem."""
    writer = merlins_file(path)
    writer.create(study(1, "first"), study(2), study(1, "second"), study(1, "third"))
    async with open_backend(url_of(path)) as backend:
        loaded = [entry async for batch in backend.load() for entry in batch]
        entries = {entry.key: entry for entry in loaded}
        assert entries[Key(STUDY, uid(1))].record == study(1, "first")
        assert [problem.field for problem in entries[Key(STUDY, uid(1))].problems] == ["id"]
        assert entries[Key(STUDY, uid(2))] == Entry(Key(STUDY, uid(2)), study(2))
        assert await backend.fetch([Key(STUDY, uid(1))]) == [entries[Key(STUDY, uid(1))]]
        async with aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            writer.run("DELETE FROM study WHERE name = 'first'")
            changed = await next_of(notices, Changed)
            assert changed.keys == {Key(STUDY, uid(1))}
            (entry,) = await backend.fetch(changed.keys)
            assert entry.record == study(1, "second")
            writer.run("DELETE FROM study WHERE name = 'third'")
            await next_of(notices, Changed)
            assert await backend.fetch([Key(STUDY, uid(1))]) == [Entry(Key(STUDY, uid(1)), study(1, "second"))]


async def test_rows_without_an_id_are_problems(path: Path) -> None:
    """A row whose id is NULL, a number, or no UUID is an entry with a problem, by load and by fetch."""
    writer = merlins_file(path)
    writer.create(study(1))
    writer.run("INSERT INTO study (name) VALUES ('none')")
    writer.run("INSERT INTO study (id, name) VALUES ('x', 'no uuid')")
    writer.run("INSERT INTO study (id, name) VALUES (x'ff00', 'bytes')")
    async with open_backend(url_of(path)) as backend:
        entries = await read(backend)
        assert entries.pop(Key(STUDY, uid(1))).record == study(1)
        assert len(entries) == 3
        assert all(entry.record is None and entry.problems for entry in entries.values())
        assert {entry.key: entry for entry in await backend.fetch(list(entries))} == entries


async def test_bytes_that_are_no_text_are_a_problem_in_sqlite_too(path: Path) -> None:
    """A text column with other bytes than UTF-8 hides neither its record nor the others."""
    writer = merlins_file(path)
    writer.create(study(1), study(2))
    writer.run("UPDATE study SET name = CAST(x'636166e9' AS TEXT) WHERE id = ?", uid(1))
    async with open_backend(url_of(path)) as backend:
        entries = await read(backend)
        assert entries[Key(STUDY, uid(1))].record == study(1, "caf\N{REPLACEMENT CHARACTER}")
        assert [problem.field for problem in entries[Key(STUDY, uid(1))].problems] == ["name"]
        assert entries[Key(STUDY, uid(2))].record == study(2)


async def test_a_table_that_misses_a_column_is_read(path: Path) -> None:
    """What stands in the other columns is served, and the names of nobody are asked for."""
    writer = merlins_file(path)
    writer.create(run(1), run(2), study(3))
    writer.run("ALTER TABLE run DROP COLUMN workspace")
    writer.run("ALTER TABLE run DROP COLUMN run_status")
    async with open_backend(url_of(path)) as backend:
        entries = await read(backend)
        assert entries[Key(RUN, uid(1))].record == run(1, "", run_status=RunStatus.UNKNOWN)
        assert {problem.field for problem in entries[Key(RUN, uid(1))].problems} == {"workspace", "run_status"}
        assert await backend.name_owners(RUN, ["", "/runs/run_1"]) == {}


async def test_a_table_that_is_missing_is_made(path: Path) -> None:
    """A file with some of Merlin's tables gets the others."""
    writer = merlins_file(path)
    writer.create(study(1))
    writer.run("DROP TABLE run")
    async with open_backend(url_of(path)) as backend:
        await backend.insert([run(2)])
        assert await records(backend) == by_key(study(1), run(2))


async def test_a_file_without_any_table_is_a_new_one(path: Path) -> None:
    """An empty file becomes Merlin's database."""
    path.touch()
    async with open_backend(url_of(path)) as backend:
        await backend.insert([study(1)])
        assert await records(backend) == by_key(study(1))


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Whatever else stands there is left as it was."""
    path.write_text("spec:\n  name: hello\n" * 100)
    error = await refusal(url_of(path))
    assert isinstance(error, WrongDatabaseError)
    assert "is no SQLite database" in str(error)
    assert path.read_text().startswith("spec:")


async def test_a_foreign_database_is_refused(path: Path) -> None:
    """A database with other tables than Merlin's is left as it was."""
    with held(path, "CREATE TABLE customers (id TEXT)"):
        pass
    error = await refusal(url_of(path))
    assert isinstance(error, WrongDatabaseError)
    assert "is no database of Merlin's" in str(error)
    assert list(columns(path)) == ["customers"]
    with held(path, "CREATE TABLE study (number INTEGER)"):
        pass
    assert "has no column id" in str(await refusal(url_of(path)))


async def test_what_is_no_place_for_a_file_is_refused(tmp_path: Path) -> None:
    """A directory, a path below a missing one, and a path below a file are refused; nothing is made."""
    for path, why in (
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "merlin.db", "does not exist"),
    ):
        error = await refusal(url_of(path))
        assert isinstance(error, WrongDatabaseError)
        assert why in str(error)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert isinstance(await refusal(url_of(tmp_path / "file" / "merlin.db")), WrongDatabaseError)


async def test_an_absolute_path_with_too_few_slashes_is_hinted_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sqlite:///home/me/merlin.db` is relative; the error says how an absolute one is written."""
    monkeypatch.chdir(tmp_path)
    assert "sqlite:////home/me/merlin.db" in str(await refusal("sqlite:///home/me/merlin.db"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_refused(path: Path) -> None:
    """The reason is said."""
    merlins_file(path)
    path.chmod(0)
    assert isinstance(await refusal(url_of(path)), BackendUnavailableError)


async def test_a_locked_file_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the file for long makes opening and writing fail; reading under WAL goes on."""
    monkeypatch.setattr(sqlite_backend, "_LOCK_WAIT", 0.2)
    writer = merlins_file(path)
    writer.create(study(1))
    async with open_backend(url_of(path)) as backend:
        with held(path, "BEGIN IMMEDIATE"):
            assert await records(backend) == by_key(study(1))
            with pytest.raises(BackendUnavailableError, match="locked"):
                await backend.insert([study(2)])
        await backend.insert([study(3)])
        assert await records(backend) == by_key(study(1), study(3))
    with held(path, "PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE"):
        error = await refusal(url_of(path))
    assert isinstance(error, BackendUnavailableError)
    assert "locked" in str(error)


async def test_a_locked_file_is_lost_while_watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change behind a lock that outlasts the patience of a watch is lost, and followed after it."""
    monkeypatch.setattr(sqlite_backend, "_LOCK_WAIT", 0.1)
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.05)
    merlins_file(path)
    with held(path, "PRAGMA journal_mode=DELETE"):
        pass
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        with held(path, "BEGIN EXCLUSIVE"):
            os.utime(path)
            assert "locked" in (await next_of(notices, Lost)).reason
        await next_of(notices, Reload)


async def test_a_replaced_file_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file under the same path is lost and found, and then the one that is read."""
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.05)
    merlins_file(path).create(study(1))
    merlins_file(path.with_name("other.db")).create(study(2))
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        for leftover in path.parent.glob("merlin.db-*"):
            leftover.unlink()
        path.with_name("other.db").rename(path)
        assert "was replaced" in (await next_of(notices, Lost)).reason
        await next_of(notices, Reload)
        assert await records(backend) == by_key(study(2))
        SQLiteWriter(path).create(study(3))
        assert (await next_of(notices, Changed)).keys == {Key(STUDY, uid(3))}


async def test_a_link_to_a_file_is_followed(path: Path) -> None:
    """A commit into a log that somebody keeps open, beside the file itself, is noticed."""
    merlins_file(path).create(study(1))
    link = path.parent / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with held(path, "PRAGMA journal_mode=WAL", "SELECT * FROM study"):
        async with open_backend(url_of(link)) as backend, aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            assert await records(backend) == by_key(study(1))
            SQLiteWriter(path).create(study(2))
            assert (await next_of(notices, Changed)).keys == {Key(STUDY, uid(2))}


async def test_a_removed_file_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was deleted is lost, is not made anew by us, and is read again when it is back."""
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.05)
    merlins_file(path)
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        for file in path.parent.glob("merlin.db*"):
            file.unlink()
        for _ in range(3):
            await next_of(notices, Lost)
        assert not path.exists()
        merlins_file(path.with_name("other.db")).create(study(2))
        path.with_name("other.db").rename(path)
        await next_of(notices, Reload)
        assert await records(backend) == by_key(study(2))


async def test_dropped_tables_are_empty_ones(path: Path) -> None:
    """Merlin's flush drops every table: all records are gone, and new tables are read again."""
    writer = merlins_file(path)
    writer.create(study(1), run(2))
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        assert await records(backend) == by_key(study(1), run(2))
        writer.flush()
        told: set[Key] = set()
        while told != {Key(STUDY, uid(1)), Key(RUN, uid(2))}:
            told |= (await next_of(notices, Changed)).keys
        assert {entry.record for entry in await backend.fetch(told)} == {None}
        assert await read(backend) == {}
        assert await backend.name_owners(STUDY, ["study_1"]) == {}
        merlins_file(path).create(study(3))
        await next_of(notices, Changed, lambda changed: bool(changed.keys))
        assert await records(backend) == by_key(study(3))


async def test_records_can_be_inserted_after_a_flush(path: Path) -> None:
    """Tables that Merlin dropped are made again, in its present dialect."""
    writer = merlins_file(path)
    async with open_backend(url_of(path)) as backend:
        writer.flush()
        await backend.insert([study(1), run(2, run_status=RunStatus.FAILED)])
        assert await records(backend) == by_key(study(1), run(2, run_status=RunStatus.FAILED))


async def test_an_insert_that_fails_writes_nothing(path: Path) -> None:
    """All records are written, or none."""
    writer = merlins_file(path)
    writer.run("ALTER TABLE run DROP COLUMN samples")
    async with open_backend(url_of(path)) as backend:
        with pytest.raises(BackendError, match="samples"):
            await backend.insert([study(1), run(2)])
        assert await read(backend) == {}
        await backend.insert([study(3)])
        assert await records(backend) == by_key(study(3))


async def test_only_an_open_sqlite_is_read(path: Path) -> None:
    """Before it is opened, and after it is closed, a backend is unavailable."""
    backend = make_backend(url_of(path), BackendOptions())
    with pytest.raises(BackendUnavailableError, match="not open"):
        await backend.fetch([Key(STUDY, uid(1))])
    await backend.close()
    with pytest.raises(BackendUnavailableError, match="closed"):
        await backend.fetch([Key(STUDY, uid(1))])


async def test_a_closed_sqlite_leaves_no_thread_and_no_file_open(path: Path) -> None:
    """After close nothing of ours holds the file."""
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        thread = backend._thread if isinstance(backend, SQLiteBackend) else None
    assert thread is not None
    assert not any(worker.is_alive() for worker in thread._threads)
    assert not path.with_name("merlin.db-wal").exists()  # the last connection that closes removes it
