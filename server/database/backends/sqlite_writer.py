"""Writes to SQLite (the SQL of writing) in one short transaction, within the 5 seconds that Merlin waits for a lock."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Lock

from server.database.backends.base import SETTLE_SECONDS
from server.database.backends.codec import Raw
from server.database.backends.notes import LIFETIMES, NoteKey
from server.database.backends.write_set import WriteSet
from server.database.errors import UnknownOutcomeError
from server.database.models import EntityKind, Key

NOTES = "merlin_graphql_notes"
"""The table of this server's own notes."""

Execute = Callable[[str, Collection[object]], sqlite3.Cursor]


@contextmanager
def writing(execute: Execute) -> Iterator[None]:
    """A transaction that is rolled back where anything is raised, by its commit too, which readers may hold up."""
    execute("BEGIN IMMEDIATE", ())
    try:
        yield
        execute("COMMIT", ())
    except BaseException:
        with suppress(sqlite3.OperationalError):  # after some errors SQLite has rolled back by itself
            execute("ROLLBACK", ())
        raise


class Conflict(Exception):  # noqa: N818 - no error: it ends a transaction, and never leaves this module's callers
    """Something that was read stands otherwise now, or the write was withdrawn."""


class Withdrawal:
    """Whether a write may still be committed: SQLite's thread asks, and the event loop's withdraws."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_withdrawn = False
        self._is_committing = False

    def check(self) -> None:
        """To be called just before the commit. Raises `Conflict` if the write was withdrawn."""
        with self._lock:
            if self._is_withdrawn:
                raise Conflict
            self._is_committing = True

    async def settled(self, write: Coroutine[object, object, bool], connection: str) -> bool:
        """Awaits the write, which a cancellation withdraws, as `ResultsBackend.commit` promises."""
        writing = asyncio.ensure_future(write)
        try:
            await asyncio.wait({writing})
        except asyncio.CancelledError:
            writing.add_done_callback(_look_at)
            if self._withdraw():
                raise
            await asyncio.wait({writing}, timeout=SETTLE_SECONDS)
            if not writing.done():
                raise UnknownOutcomeError(
                    f"The database {connection} did not answer in time. "
                    "Whether the change was made is not known: check before you try again."
                ) from None
            if writing.exception() is None and writing.result():
                return True
            raise
        return writing.result()

    def _withdraw(self) -> bool:
        """Whether that came in time, so that nothing will be written."""
        with self._lock:
            self._is_withdrawn = True
            return not self._is_committing


def _look_at(writing: asyncio.Future[bool]) -> None:
    """Nobody waits for it any more: its error is no news."""
    if not writing.cancelled():
        writing.exception()


def write(
    execute: Execute,
    batch: WriteSet,
    *,
    standing: Mapping[Key, Raw],
    rows: Mapping[Key, Sequence[int]],
    owners: Callable[[EntityKind, Collection[str]], Mapping[str, str]],
    columns: Callable[[EntityKind], tuple[str, ...]],
    notes: Callable[[Collection[NoteKey]], Mapping[NoteKey, str | None]],
    now: float,
    is_touched: Callable[[], bool],
) -> None:
    """Within a transaction. `standing` is what stands now of what the batch reads and writes, and `rows` where.

    `is_touched`: whether anybody wrote into the file meanwhile, which no transaction does.

    There is no index: an update by id would look through the whole table for each. Raises `Conflict`.
    """
    if _differs(batch, standing, owners, notes):
        raise Conflict
    if any(key.kind is EntityKind.PHYSICAL_WORKER and key not in standing for key in batch.written):
        make_readable(execute, columns)
    written = batch.written_over(standing)
    if written is None:
        raise Conflict
    for key, fields in written.items():
        known = columns(key.kind)
        values = {name: value for name, value in fields.items() if name in known}
        if key not in standing:
            marks = ", ".join("?" * len(values))
            execute(f"INSERT INTO {key.kind} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))  # noqa: S608 - our own words only
        elif values:
            settings = ", ".join(f"{name} = ?" for name in values)
            for row in rows[key]:
                execute(f"UPDATE {key.kind} SET {settings} WHERE rowid = ?", (*values.values(), row))  # noqa: S608 - our own words only
    for kind in {key.kind for key in batch.deleted}:
        ids = [key.id for key in batch.deleted if key.kind is kind]
        marks = ", ".join("?" * len(ids))
        execute(f"DELETE FROM {kind} WHERE id IN ({marks})", ids)  # noqa: S608 - our own words only
    _write_notes(execute, batch.notes, now)
    if is_touched():
        raise Conflict


def _differs(
    batch: WriteSet,
    standing: Mapping[Key, Raw],
    owners: Callable[[EntityKind, Collection[str]], Mapping[str, str]],
    notes: Callable[[Collection[NoteKey]], Mapping[NoteKey, str | None]],
) -> bool:
    """Whether anything that the batch has read stands otherwise now."""
    if not all(batch.is_as_read(key, standing.get(key)) for key in batch.read):
        return True
    for kind in {kind for kind, _ in batch.owners}:
        read = {name: owner for (other, name), owner in batch.owners.items() if other is kind}
        now = owners(kind, read)
        if any(now.get(name) != owner for name, owner in read.items()):
            return True
    return notes(batch.read_notes) != batch.read_notes


def insert(
    execute: Execute, columns: Callable[[EntityKind], tuple[str, ...]], rows: Iterable[tuple[EntityKind, Raw]]
) -> None:
    """Inserts rows of records that do not exist, in one transaction."""
    with writing(execute):
        make_readable(execute, columns)
        for kind, fields in rows:
            names, marks = ", ".join(fields), ", ".join("?" * len(fields))
            execute(f"INSERT INTO {kind} ({names}) VALUES ({marks})", fields.values())  # noqa: S608 - our own words only


def make_readable(execute: Execute, columns: Callable[[EntityKind], tuple[str, ...]]) -> None:
    """Makes an empty table of physical workers anew, with texts only; to be called before a first row is inserted.

    Merlin 2.0.0b4 makes its `restart_count` INTEGER, and then fails at each row that it reads back: its commands work
    while there is no physical worker, and not after that. A table that has rows already stays.
    """
    kind = EntityKind.PHYSICAL_WORKER
    types = {row["name"]: row["type"] for row in execute(f"PRAGMA table_info({kind})", ())}
    if types.get("restart_count", "TEXT") == "TEXT" or execute(f"SELECT 1 FROM {kind} LIMIT 1", ()).fetchone():  # noqa: S608 - our own words only
        return
    definitions = ", ".join(f"{name} TEXT" for name in columns(kind))
    execute(f"DROP TABLE {kind}", ())
    execute(f"CREATE TABLE {kind} ({definitions})", ())


def _write_notes(execute: Execute, notes: Mapping[NoteKey, str | None], now: float) -> None:
    """`now` is in seconds since 1970: notes that have expired go at the next write."""
    if not execute(f"PRAGMA table_info({NOTES})", ()).fetchone():
        if not any(notes.values()):
            return
        execute(f"CREATE TABLE {NOTES} (kind TEXT, id TEXT, text TEXT, expires REAL, PRIMARY KEY (kind, id))", ())
    execute(f"DELETE FROM {NOTES} WHERE expires < ?", (now,))  # noqa: S608 - our own words only
    for key, text in notes.items():
        if text is None:
            execute(f"DELETE FROM {NOTES} WHERE kind = ? AND id = ?", (key.kind, key.id))  # noqa: S608 - as above
        else:
            expires = now + LIFETIMES[key.kind] if key.kind in LIFETIMES else None
            execute(f"INSERT OR REPLACE INTO {NOTES} VALUES (?, ?, ?, ?)", (key.kind, key.id, text, expires))  # noqa: S608 - as above
