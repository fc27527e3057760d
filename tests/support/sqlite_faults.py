"""Faults of an SQLite file under a load of mutations: what operators, other programs and disks do to it."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.histories import Stored, Told, resting, until_done
from tests.support.merlin_process import Merlin

_LOCK_SECONDS = 1.0
_LONG_LOCK_SECONDS = 7.0
"""More than the 5 seconds for which a writer waits."""
_SMALL_FILE = 4096
"""Bytes that any file may have while the disk is full: no page fits into a write-ahead log."""
_PAUSE = 0.5
_BETWEEN = 10
"""Mutations between a backup and its return: they are rightly gone then."""
_KILLED_WRITER = """
import sqlite3, sys
path, mode, committed = sys.argv[1:]
connection = sqlite3.connect(path, timeout=20, isolation_level=None)
while True:
    try:
        connection.execute(f"PRAGMA journal_mode={mode}")
        break
    except sqlite3.OperationalError:
        pass
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN IMMEDIATE")
if committed == "committed":
    connection.execute("INSERT INTO study (id, name) VALUES ('killed', 'killed')")
    connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE run SET workspace = 'never committed'")
connection.execute("CREATE TABLE merlin_graphql_filler (text TEXT)")
connection.executemany("INSERT INTO merlin_graphql_filler VALUES (?)", [("x" * 3000,)] * 200)
print(flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class FileSite:
    path: Path
    told: Told
    merlin: Merlin


FileFault: TypeAlias = Callable[[FileSite], Coroutine[Any, Any, None]]


def runs_in(path: Path) -> dict[str, Stored]:
    """What stands in a file, without this project's code."""
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        rows = connection.execute("SELECT workspace, additional_data FROM run").fetchall()
    return {workspace: json.loads(data).get("n") for workspace, data in rows}


def _back_up(path: Path) -> Path:
    backup = path.with_name("backup.db")
    backup.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, timeout=20)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup


async def moved(site: FileSite) -> None:
    """`mv` of a backup onto the file, while clients write."""
    backup = await asyncio.to_thread(_back_up, site.path)
    stored = runs_in(backup)
    await until_done(site.told, _BETWEEN)
    backup.replace(site.path)
    site.told.begin_anew(stored)


async def copied(site: FileSite) -> None:
    """`cp` of a backup onto the file, which heeds no lock, while nobody writes: clients, and what servers sweep."""
    backup = await asyncio.to_thread(_back_up, site.path)
    stored = runs_in(backup)
    await until_done(site.told, _BETWEEN)
    async with resting(site.told):
        connection = sqlite3.connect(site.path, timeout=20, isolation_level=None, check_same_thread=False)
        with closing(connection) as writer:
            await asyncio.to_thread(writer.execute, "BEGIN IMMEDIATE")
            copying = await asyncio.create_subprocess_exec("cp", backup, site.path)
            assert await copying.wait() == 0
        site.told.begin_anew(stored)


async def restored(site: FileSite) -> None:
    """`.restore` of sqlite3, which writes the backup in one transaction, while clients write."""
    backup = await asyncio.to_thread(_back_up, site.path)
    stored = runs_in(backup)
    await until_done(site.told, _BETWEEN)
    async with resting(site.told):
        await asyncio.to_thread(_restore, backup, site.path)
        site.told.begin_anew(stored)


def _restore(backup: Path, path: Path) -> None:
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(path, timeout=20)) as target:
        source.backup(target)


async def deleted(site: FileSite) -> None:
    """The file is gone until Merlin makes it anew."""
    site.path.unlink()
    site.told.begin_anew({})
    await asyncio.sleep(_PAUSE)
    site.merlin.close()  # a process of Merlin makes its tables once
    await asyncio.to_thread(site.merlin.call, "studies.create", "faults")


async def unwritable(site: FileSite) -> None:
    """Nobody may write into the file or beside it for a while."""
    beside = site.path.parent
    site.path.chmod(0o400)
    beside.chmod(0o500)
    await asyncio.sleep(_PAUSE)
    beside.chmod(0o700)
    site.path.chmod(0o600)


async def disk_full(site: FileSite) -> None:
    """The server's process may make no file larger, as on a full disk."""
    del site
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_SMALL_FILE, before[1]))
    try:
        await asyncio.sleep(_PAUSE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def locked(site: FileSite) -> None:
    await _lock(site.path, _LOCK_SECONDS)


async def locked_long(site: FileSite) -> None:
    """Longer than a writer waits."""
    await _lock(site.path, _LONG_LOCK_SECONDS)


async def _lock(path: Path, seconds: float) -> None:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        await _insist(other, "BEGIN EXCLUSIVE")
        await asyncio.sleep(seconds)
        other.execute("COMMIT")


async def _insist(connection: sqlite3.Connection, statement: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(sqlite3.OperationalError):  # others have the file open
                connection.execute(statement)
                return
            await asyncio.sleep(0.002)


async def vacuumed(site: FileSite) -> None:
    with closing(sqlite3.connect(site.path, timeout=0, isolation_level=None)) as other:
        for _ in range(5):
            await _insist(other, "VACUUM")
            await asyncio.sleep(0.05)


async def journal_changed(site: FileSite) -> None:
    """From a write-ahead log to a rollback journal and back, again and again."""
    for mode in ("DELETE", "WAL") * 3:
        with closing(sqlite3.connect(site.path, timeout=0, isolation_level=None)) as other:
            await _insist(other, f"PRAGMA journal_mode={mode}")
        await asyncio.sleep(0.2)


async def hot_journal(site: FileSite) -> None:
    """A writer is killed in the middle of a transaction, with half of it in the file and the journal beside it."""
    await asyncio.to_thread(_kill_writer, site.path, "DELETE", "nothing")
    await until_done(site.told, _BETWEEN)
    with closing(sqlite3.connect(site.path, timeout=0, isolation_level=None)) as other:
        await _insist(other, "PRAGMA journal_mode=WAL")


async def log_left(site: FileSite) -> None:
    """A writer is killed that has committed into the write-ahead log, and begun another transaction there."""
    await asyncio.to_thread(_kill_writer, site.path, "WAL", "committed")


def _kill_writer(path: Path, mode: str, committed: str) -> None:
    beside = "wal" if mode == "WAL" else "journal"
    command = [sys.executable, "-c", _KILLED_WRITER, str(path), mode, committed]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n"
        assert path.with_name(f"{path.name}-{beside}").stat().st_size > 0
        writer.send_signal(signal.SIGKILL)


FILE_FAULTS: list[FileFault] = [
    *(moved, copied, restored, deleted, unwritable, disk_full, locked, vacuumed, journal_changed, hot_journal),
    log_left,
]
LONG_FILE_FAULTS: list[FileFault] = [locked_long]
"""For the soak only."""
