"""Merlin's SQLite file (the SQL of reading): a table a kind, a text column a field, no keys and no indexes.

One connection on one thread of its own: SQLite then tells by `PRAGMA data_version` of every commit that was not ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, TypeVar

from server.database.backends import sqlite_messages
from server.database.backends.barriers import Barriers
from server.database.backends.base import (
    Alive,
    Changed,
    Lost,
    Notice,
    Progress,
    Reload,
    ResultsBackend,
    no_delay,
    no_progress,
)
from server.database.backends.codec import Dialect, Raw, decode, encode, is_entity_id
from server.database.backends.notes import FOLLOWED, Note, NoteKey
from server.database.backends.portions import SCAN_BATCH, portions
from server.database.backends.sqlite_columns import COLUMNS, Columns, outdated, required_dialect
from server.database.backends.sqlite_file import SQLiteFile, open_file
from server.database.backends.sqlite_path import path_of
from server.database.backends.sqlite_revision import raise_revision, read_revision, store_revision
from server.database.backends.sqlite_writer import NOTES, Conflict, Withdrawal, make_readable, write, writing
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.models import KINDS, EntityKind, Entry, Key, Model, UnreadableValue

_NAME_COLUMN = {EntityKind.STUDY: "name", EntityKind.RUN: "workspace", EntityKind.PHYSICAL_WORKER: "name"}
_LOCK_WAIT = 5.0
"""Seconds, as Merlin waits."""
_POLL_INTERVAL = 0.1
_POLL_SHARE = 2
"""After comparing everything: pause this many times as long as it took."""
_PAUSE = 0.5
_BATCH = 500
_BEFORE_ANY_ROW = -(2**63)

_Result = TypeVar("_Result")
_Fingerprints = dict[Key, int]


class SQLiteBackend(ResultsBackend):
    kind: ClassVar[str] = "sqlite"

    def __init__(self, url: str, *, create: bool = True, read_only: bool = False) -> None:
        """`create`: a new file where there is none."""
        self.path = path_of(url)
        super().__init__(f"sqlite:///{self.path}")
        self._create = create
        self._read_only = read_only
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._file: SQLiteFile | None = None
        self._given: _Fingerprints = {}
        """What was read last of every key. Compared with what stands there, it misses no change that is undone soon."""
        self._given_notes: dict[NoteKey, str] = {}
        self._loads = 0
        """Under way; until they end, it is not known what was given."""
        self._is_closed = False
        self._barriers = Barriers()

    async def open(self) -> None:
        await self._run(self._open)

    async def close(self) -> None:
        if not self._is_closed:
            await self._run(self._close)
            self._is_closed = True
            self._thread.shutdown()

    async def get_version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        done, total = 0, await self._run(lambda: sum(map(self._count, EntityKind)))
        await self.read_revision()
        given: _Fingerprints = {}
        self._loads += 1
        try:
            for kind in EntityKind:
                repeated: set[Key] = set()
                after = _BEFORE_ANY_ROW
                while batch := await self._run(partial(self._page, kind, after, _BATCH)):
                    after = batch[-1][1]["_row"]
                    entries = []
                    for key, raw in batch:
                        if key in given:
                            repeated.add(key)
                        else:
                            entries.append(_decode(key, raw))
                        _note(given, key, raw)
                    yield entries
                    done += len(batch)
                    progress(done, max(done, total))
                if repeated:
                    yield await self._run(partial(self._fetch, repeated, given))
            self._given = given
        finally:
            self._loads -= 1

    async def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        """Of several rows with one id, each comes by itself. What was given to `fetch` and `load` stays as it is."""
        last = {kind: await self._run(partial(self._last_row, kind)) for kind in EntityKind}
        passed, total = 0, sum(last.values())
        for kind in EntityKind:
            after = _BEFORE_ANY_ROW
            while page := await self._run(partial(self._page, kind, after, SCAN_BATCH)):
                for portion in portions(page, _length):
                    after = portion[-1][1]["_row"]
                    progress(min(passed + max(after, 0), total), total)
                    yield [_decode(key, row) for key, row in portion]
            passed += last[kind]

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        revision, entries = await self._run(lambda: (read_revision(self._execute), self._fetch(keys, self._given)))
        self.revisions.note_stored(revision)
        return entries

    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        return await self._run(lambda: self._name_owners(kind, names))

    async def insert(self, records: Iterable[Model]) -> None:
        await self._run(lambda: self._insert(records))

    async def read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        return await self._run(lambda: self._read_raw(keys))

    async def load_notes(self) -> list[Note]:
        self._given_notes = await self._run(self._notes)
        return [Note(key, text) for key, text in self._given_notes.items()]

    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        return await self._run(lambda: self._read_notes(keys))

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:  # noqa: ARG002 - all of them wait for the thread
        withdrawal = Withdrawal()
        return await withdrawal.settled(self._run(lambda: self._commit(batch, withdrawal)), self.connection)

    async def leave_message(self, board: str, message: str, at: float, *, most: int) -> None:
        await self._run(lambda: sqlite_messages.leave(self._execute, board, message, at, most))

    async def messages(self, board: str, since: float) -> Mapping[str, float]:
        return await self._run(lambda: sqlite_messages.read(self._execute, board, since))

    async def required_dialect(self) -> Dialect:
        return required_dialect(await self._run(self._all_columns))

    async def outdated_tables(self) -> Mapping[EntityKind, str]:
        return outdated(await self._run(self._all_columns))

    async def read_revision(self) -> None:
        self.revisions.note_stored(await self._run(lambda: read_revision(self._execute)))

    async def store_revision(self, revision: int) -> None:
        self.revisions.note_stored(await self._run(lambda: store_revision(self._execute, revision)))

    async def synchronize(self) -> None:
        await self._barriers.join()

    async def watch(self) -> AsyncGenerator[Notice]:
        while True:
            try:
                version = await self._run(self._reopen)
                columns = await self._run(self._all_columns)
                yield Reload()
                pause = _POLL_INTERVAL
                while True:
                    await asyncio.sleep(pause)
                    pause = _POLL_INTERVAL
                    if self._loads:
                        yield Alive()
                        continue
                    with self._barriers.look():
                        now = await self._run(self._version)
                        if now == version or self._loads:
                            yield Alive()
                            continue
                        version, started = now, time.monotonic()
                        keys, notes = await self._run(lambda: (self._differences(), self._differing_notes()))
                        took = time.monotonic() - started
                        pause = max(_POLL_INTERVAL, _POLL_SHARE * took)
                        self.notice_delay = max(type(self).notice_delay, 2 * (pause + took))
                        yield Changed(keys, notes=notes)
                    now_columns = await self._run(self._all_columns)
                    if any(names not in ((), columns[kind]) for kind, names in now_columns.items()):
                        yield Reload()  # the same rows mean something else now
                    columns = {kind: names or columns[kind] for kind, names in now_columns.items()}
            except BackendError as error:
                yield Lost(str(error))
                await asyncio.sleep(_PAUSE)

    async def _run(self, step: Callable[[], _Result]) -> _Result:
        if self._is_closed:
            raise BackendUnavailableError(f"The database {self.path} is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except (sqlite3.Error, OSError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> BackendError:
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
            return WrongDatabaseError(f"{self.path} is no SQLite database.")
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            return BackendUnavailableError(
                f"The database {self.connection} stays locked by another process: try again."
            )
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            return BackendUnavailableError(
                f"The database {self.connection}, or its directory, is read-only: serve it with --read-only."
            )
        return BackendUnavailableError(f"Can't read the database {self.connection}: {error}.")

    # What follows runs on the thread.

    def _open(self) -> None:
        file = open_file(self.path, create=self._create, read_only=self._read_only, timeout=_LOCK_WAIT)
        self._close()
        self._file = file
        file.connection.row_factory = sqlite3.Row
        file.connection.text_factory = _text  # else one text that is no UTF-8 makes its whole table unreadable
        self._prepare_tables()

    def _prepare_tables(self) -> None:
        tables = {
            name
            for (name,) in self._execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            if not name.startswith(("sqlite_", "merlin_graphql_"))
        }
        if tables and tables.isdisjoint(EntityKind):
            raise WrongDatabaseError(
                f"{self.path} is no database of Merlin's: it has tables, but none of {', '.join(EntityKind)}."
            )
        for kind in EntityKind:
            if kind in tables and "id" not in self._columns(kind):
                raise WrongDatabaseError(f"{self.path} is no database of Merlin's: its table {kind} has no column id.")
        for kind in () if self._read_only else set(EntityKind) - tables:
            columns = ", ".join(f"{name} TEXT" for name in COLUMNS[kind])
            self._execute(f"CREATE TABLE IF NOT EXISTS {kind} ({columns})")

    def _reopen(self) -> int:
        """The file may have been replaced by another since it was opened."""
        if self._file is None or self._file.is_another_now():
            self._open()
        return self._version()

    def _close(self) -> None:
        if self._file is not None:
            self._file.connection.close()
            self._file = None

    def _version(self) -> int:
        (version,) = self._execute("PRAGMA data_version").fetchone()
        return int(version)

    def _differences(self) -> frozenset[Key]:
        """Where something else stands now than was given."""
        standing: _Fingerprints = {}
        for kind in EntityKind:
            for key, raw in self._rows(kind):
                _note(standing, key, raw)
        return frozenset(key for key, _ in standing.items() ^ self._given.items())

    def _notes(self) -> dict[NoteKey, str]:
        """All of them; empty where none was ever written."""
        kinds = {kind.value: kind for kind in FOLLOWED}
        rows = self._note_rows("kind, id, text")
        return {NoteKey(kinds[kind], id_): text for kind, id_, text in rows if kind in kinds}

    def _note_rows(self, columns: str, where: str = "", parameters: Collection[Any] = ()) -> list[sqlite3.Row]:
        if not self._execute(f"PRAGMA table_info({NOTES})").fetchone():
            return []
        statement = f"SELECT {columns} FROM {NOTES} WHERE (expires IS NULL OR expires >= ?) {where}"  # noqa: S608 - our own words only
        return self._execute(statement, (time.time(), *parameters)).fetchall()

    def _notes_under(self, keys: Collection[NoteKey]) -> dict[NoteKey, str | None]:
        found: dict[NoteKey, str | None] = {}
        for key in keys:
            rows = self._note_rows("text", "AND kind = ? AND id = ?", key)
            found[key] = rows[0]["text"] if rows else None
        return found

    def _read_notes(self, keys: Collection[NoteKey]) -> dict[NoteKey, str | None]:
        found = self._notes_under(keys)
        for key, text in found.items():
            self._given_notes.pop(key, None)
            if text is not None and key.kind in FOLLOWED:
                self._given_notes[key] = text
        return found

    def _differing_notes(self) -> frozenset[NoteKey]:
        return frozenset(key for key, _ in self._notes().items() ^ self._given_notes.items())

    def _execute(self, statement: str, parameters: Collection[Any] = ()) -> sqlite3.Cursor:
        if self._file is None:
            raise BackendUnavailableError(f"The database {self.path} is not open.")
        if self._file.is_another_now():
            raise BackendUnavailableError(f"The database file {self.path} was replaced.")
        return self._file.connection.execute(statement, tuple(parameters))

    def _columns(self, kind: EntityKind) -> tuple[str, ...]:
        """Empty where Merlin's flush has dropped the table."""
        return tuple(row["name"] for row in self._execute(f"PRAGMA table_info({kind})"))

    def _all_columns(self) -> Columns:
        return {kind: self._columns(kind) for kind in EntityKind}

    def _count(self, kind: EntityKind) -> int:
        if not self._columns(kind):
            return 0
        (count,) = self._execute(f"SELECT count(*) FROM {kind}").fetchone()  # noqa: S608 - one of our four words
        return int(count)

    def _last_row(self, kind: EntityKind) -> int:
        """Its number, found without looking at the others; 0 where there is none."""
        if not self._columns(kind):
            return 0
        (last,) = self._execute(f"SELECT max(rowid) FROM {kind}").fetchone()  # noqa: S608 - one of our four words
        return max(last or 0, 0)

    def _rows(
        self, kind: EntityKind, where: str = "", parameters: Collection[Any] = (), limit: str = ""
    ) -> Iterator[tuple[Key, sqlite3.Row]]:
        """In the order of insertion: of several rows with one id, Merlin reads the first."""
        if not self._columns(kind):
            return iter(())
        statement = f"SELECT rowid AS _row, * FROM {kind} {where} ORDER BY rowid {limit}"  # noqa: S608 - our own words only
        return ((_key(kind, row), row) for row in self._execute(statement, parameters))

    def _page(self, kind: EntityKind, after: int, size: int) -> list[tuple[Key, sqlite3.Row]]:
        """Read to its end: a statement that stays open would keep us from writing, and others from a checkpoint."""
        return list(self._rows(kind, "WHERE rowid > ?", (after,), f"LIMIT {size}"))

    def _fetch(self, keys: Collection[Key], given: _Fingerprints) -> list[Entry]:
        entries: dict[Key, Entry] = {key: Entry(key, None) for key in keys}
        for key in keys:
            given.pop(key, None)
        for kind in {key.kind for key in keys}:
            for key, raw in self._rows(kind, *_where([key.id for key in keys if key.kind is kind])):
                if key not in entries:
                    continue
                _note(given, key, raw)
                if entries[key].record is None and not entries[key].problems:
                    entries[key] = _decode(key, raw)
                else:
                    entries[key] = _repeated(entries[key])
        return list(entries.values())

    def _name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        owners: dict[str, str] = {}
        column = _NAME_COLUMN.get(kind)
        if column not in self._columns(kind):
            return owners
        wanted = list(names)
        for start in range(0, len(wanted), _BATCH):
            some = wanted[start : start + _BATCH]
            for key, row in self._rows(kind, f"WHERE {column} IN ({', '.join('?' * len(some))})", some):
                owners.setdefault(row[column], key.id)
        return owners

    def _read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        return {key: _raw(rows[0]) if rows else None for key, rows in self._all_rows(keys).items()}

    def _all_rows(self, keys: Collection[Key]) -> dict[Key, list[sqlite3.Row]]:
        found: dict[Key, list[sqlite3.Row]] = {key: [] for key in keys}
        for kind in {key.kind for key in keys}:
            for key, row in self._rows(kind, *_where([key.id for key in keys if key.kind is kind])):
                if key in found:
                    found[key].append(row)
        return found

    def _commit(self, batch: WriteSet, withdrawal: Withdrawal) -> bool:
        self._prepare_tables()
        try:
            with writing(self._execute):
                standing = self._all_rows({*batch.read, *batch.written})
                write(
                    self._execute,
                    batch,
                    standing={key: _raw(rows[0]) for key, rows in standing.items() if rows},
                    rows={key: [row["_row"] for row in rows] for key, rows in standing.items()},
                    owners=self._name_owners,
                    columns=self._columns,
                    notes=self._notes_under,
                    now=time.time(),
                )
                raise_revision(self._execute, self.revisions.own, 1)
                withdrawal.check()
        except Conflict:
            return False
        return True

    def _insert(self, records: Iterable[Model]) -> None:
        self._prepare_tables()
        dialect = required_dialect(self._all_columns())
        with writing(self._execute):
            make_readable(self._execute, self._columns)
            for record in records:
                fields = encode(record, dialect)
                columns, marks = ", ".join(fields), ", ".join("?" * len(fields))
                kind = KINDS[type(record)]
                self._execute(f"INSERT INTO {kind} ({columns}) VALUES ({marks})", fields.values())  # noqa: S608 - our own words only


def _where(ids: list[str]) -> tuple[str, list[str]]:
    if len(ids) > _BATCH or not all(map(is_entity_id, ids)):
        return "", []  # all are looked at: once is cheaper for many, and a row without id is found by its number
    return f"WHERE id IN ({', '.join('?' * len(ids))})", ids


def _key(kind: EntityKind, row: sqlite3.Row) -> Key:
    id_ = row["id"]
    return Key(kind, id_ if isinstance(id_, str) else f"row {row['_row']}")


def _raw(row: sqlite3.Row) -> Raw:
    return {name: row[name] for name in row.keys() if name != "_row"}  # noqa: SIM118 - a row is no mapping


def _length(item: tuple[Key, sqlite3.Row]) -> int:
    return sum(len(value) for value in item[1] if isinstance(value, str))


def _note(fingerprints: _Fingerprints, key: Key, row: sqlite3.Row) -> None:
    """Of a key with several rows, all of them count."""
    fingerprints[key] = hash((fingerprints.get(key), tuple(row)))


def _decode(key: Key, row: sqlite3.Row) -> Entry:
    return decode(key.kind, key.id, dict(zip(row.keys(), row, strict=True)))


def _repeated(entry: Entry) -> Entry:
    problem = UnreadableValue("id", "Several rows have this id; the first is read, as Merlin does.")
    return entry if problem in entry.problems else entry._replace(problems=(*entry.problems, problem))


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")
