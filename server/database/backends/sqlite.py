"""Merlin's SQLite file: a table a kind, a text column a field, no keys and no indexes.

One connection on one thread of its own: SQLite then tells by `PRAGMA data_version` of every commit that was not ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from server.database.backends.base import (
    Alive,
    Changed,
    Lost,
    Notice,
    Progress,
    Reload,
    ResultsBackend,
    no_progress,
)
from server.database.backends.codec import Dialect, decode, encode, is_entity_id
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.models import (
    KINDS,
    EntityKind,
    Entry,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
    UnreadableValue,
)

_BLANKS: tuple[Model, ...] = (
    StudyModel("", ""),
    RunModel("", ""),
    LogicalWorkerModel("", ""),
    PhysicalWorkerModel("", ""),
)
COLUMNS: Mapping[EntityKind, tuple[str, ...]] = {KINDS[type(blank)]: tuple(encode(blank)) for blank in _BLANKS}
"""As Merlin creates the tables, but all TEXT: with its INTEGER `restart_count` Merlin reads no physical worker back."""

_NAME_COLUMN = {EntityKind.STUDY: "name", EntityKind.RUN: "workspace", EntityKind.PHYSICAL_WORKER: "name"}
_LOCK_WAIT = 5.0
"""Seconds, as Merlin waits."""
_POLL_INTERVAL = 0.1
_PAUSE = 0.5
_BATCH = 500

_Result = TypeVar("_Result")
_Fingerprints = dict[Key, int]


def path_of(url: str) -> Path:
    """`sqlite:///relative.db` or `sqlite:////absolute.db`, as everywhere in Python. Raises `WrongDatabaseError`."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or not path:
        raise WrongDatabaseError(f"Can't read the database URL {url}: write sqlite:///PATH.")
    return Path(path).expanduser()


class SQLiteBackend(ResultsBackend):
    kind: ClassVar[str] = "sqlite"

    def __init__(self, url: str) -> None:
        self.path = path_of(url)
        super().__init__(f"sqlite:///{self.path}")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._is_closed = False

    async def open(self) -> None:
        await self._run(self._open)

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            await self._run(self._close)
            self._thread.shutdown()

    async def get_version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    async def load(self, progress: Progress = no_progress) -> AsyncIterator[list[Entry]]:
        done, total = 0, await self._run(lambda: sum(map(self._count, EntityKind)))
        for kind in EntityKind:
            seen: set[Key] = set()
            repeated: set[Key] = set()
            rows = await self._run(partial(self._rows, kind))
            while batch := await self._run(partial(_take, rows, _BATCH)):
                entries = []
                for key, raw in batch:
                    if key in seen:
                        repeated.add(key)
                    else:
                        seen.add(key)
                        entries.append(_decode(key, raw))
                yield entries
                done += len(batch)
                progress(done, max(done, total))
            if repeated:
                yield await self.fetch(repeated)

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        return await self._run(lambda: self._fetch(keys))

    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        return await self._run(lambda: self._name_owners(kind, names))

    async def insert(self, records: Iterable[Model]) -> None:
        await self._run(lambda: self._insert(records))

    async def watch(self) -> AsyncGenerator[Notice]:
        while True:
            try:
                version, fingerprints = await self._run(self._reopen)
                yield Reload()
                while True:
                    await asyncio.sleep(_POLL_INTERVAL)
                    now = await self._run(self._version)
                    if now == version:
                        yield Alive()
                        continue
                    version = now
                    before, fingerprints = fingerprints, await self._run(self._fingerprints)
                    yield Changed(frozenset(key for key, _ in before.items() ^ fingerprints.items()))
            except BackendError as error:
                yield Lost(str(error))
                await asyncio.sleep(_PAUSE)

    async def _run(self, step: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except (sqlite3.Error, OSError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> BackendError:
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
            return WrongDatabaseError(f"{self.path} is no SQLite database.")
        return BackendUnavailableError(f"Can't read the database {self.connection}: {error}.")

    # What follows runs on the thread.

    def _open(self) -> None:
        if not self.path.parent.is_dir():
            hint = "" if self.path.is_absolute() else f"; for an absolute path write sqlite:////{self.path}"
            raise WrongDatabaseError(f"Can't open the database {self.path}: its directory does not exist{hint}.")
        if self.path.is_dir():
            raise WrongDatabaseError(f"Can't open the database {self.path}: it is a directory.")
        is_new = not self.path.exists()
        connection = sqlite3.connect(self.path, timeout=_LOCK_WAIT, isolation_level=None, check_same_thread=False)
        self._close()
        self._connection = connection
        connection.row_factory = sqlite3.Row
        if is_new:
            connection.execute("PRAGMA journal_mode=WAL")  # as Merlin: readers and a writer do not wait for each other
        self._prepare_tables()
        self._file = self._stat()

    def _prepare_tables(self) -> None:
        tables = {
            name
            for (name,) in self._execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            if not name.startswith("sqlite_")
        }
        if tables and tables.isdisjoint(EntityKind):
            raise WrongDatabaseError(
                f"{self.path} is no database of Merlin's: it has tables, but none of {', '.join(EntityKind)}."
            )
        for kind in EntityKind:
            if kind in tables and "id" not in self._columns(kind):
                raise WrongDatabaseError(f"{self.path} is no database of Merlin's: its table {kind} has no column id.")
        for kind in set(EntityKind) - tables:
            columns = ", ".join(f"{name} TEXT" for name in COLUMNS[kind])
            self._execute(f"CREATE TABLE IF NOT EXISTS {kind} ({columns})")

    def _reopen(self) -> tuple[int, _Fingerprints]:
        """What to compare with later. The file may have been replaced by another since it was opened."""
        if self._connection is None or self._stat() != self._file:
            self._open()
        return self._version(), self._fingerprints()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _stat(self) -> tuple[int, int]:
        stat = self.path.stat()
        return stat.st_dev, stat.st_ino

    def _version(self) -> int:
        if self._stat() != self._file:
            raise BackendUnavailableError(f"The database file {self.path} was replaced.")
        (version,) = self._execute("PRAGMA data_version").fetchone()
        return int(version)

    def _fingerprints(self) -> _Fingerprints:
        fingerprints: _Fingerprints = {}
        for kind in EntityKind:
            for key, raw in self._rows(kind):
                fingerprints[key] = hash((fingerprints.get(key), tuple(raw)))
        return fingerprints

    def _execute(self, statement: str, parameters: Collection[Any] = ()) -> sqlite3.Cursor:
        if self._connection is None:
            raise BackendUnavailableError(f"The database {self.path} is not open.")
        return self._connection.execute(statement, tuple(parameters))

    def _columns(self, kind: EntityKind) -> tuple[str, ...]:
        """Empty where Merlin's flush has dropped the table."""
        return tuple(row["name"] for row in self._execute(f"PRAGMA table_info({kind})"))

    def _count(self, kind: EntityKind) -> int:
        if not self._columns(kind):
            return 0
        (count,) = self._execute(f"SELECT count(*) FROM {kind}").fetchone()  # noqa: S608 - one of our four words
        return int(count)

    def _rows(
        self, kind: EntityKind, where: str = "", parameters: Collection[Any] = ()
    ) -> Iterator[tuple[Key, sqlite3.Row]]:
        """In the order of insertion: of several rows with one id, Merlin reads the first."""
        if not self._columns(kind):
            return iter(())
        statement = f"SELECT rowid AS _row, * FROM {kind} {where} ORDER BY rowid"  # noqa: S608 - our own words only
        return ((_key(kind, row), row) for row in self._execute(statement, parameters))

    def _fetch(self, keys: Collection[Key]) -> list[Entry]:
        entries: dict[Key, Entry] = {key: Entry(key, None) for key in keys}
        for kind in {key.kind for key in keys}:
            ids = [key.id for key in keys if key.kind is kind]
            for start in range(0, len(ids), _BATCH):
                for key, raw in self._rows(kind, *_where(ids[start : start + _BATCH])):
                    if key not in entries:
                        continue
                    if entries[key].record is None and not entries[key].problems:
                        entries[key] = _decode(key, raw)
                    else:
                        entries[key] = _repeated(entries[key])
        return list(entries.values())

    def _name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        owners: dict[str, str] = {}
        column = _NAME_COLUMN[kind]
        for name in names:
            for key, _ in self._rows(kind, f"WHERE {column} = ?", (name,)):
                owners.setdefault(name, key.id)
        return owners

    def _insert(self, records: Iterable[Model]) -> None:
        dialect = Dialect(
            run_status="run_status" in self._columns(EntityKind.RUN),
            worker_status="worker_status" in self._columns(EntityKind.PHYSICAL_WORKER),
        )
        self._execute("BEGIN IMMEDIATE")
        try:
            for record in records:
                fields = encode(record, dialect)
                columns, marks = ", ".join(fields), ", ".join("?" * len(fields))
                kind = KINDS[type(record)]
                self._execute(f"INSERT INTO {kind} ({columns}) VALUES ({marks})", fields.values())  # noqa: S608 - our own words only
        except BaseException:
            self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")


def _where(ids: list[str]) -> tuple[str, list[str]]:
    if not all(map(is_entity_id, ids)):
        return "", []  # rows whose id is none are found by their number, so all are looked at
    return f"WHERE id IN ({', '.join('?' * len(ids))})", ids


def _key(kind: EntityKind, row: sqlite3.Row) -> Key:
    id_ = row["id"]
    return Key(kind, id_ if isinstance(id_, str) else f"row {row['_row']}")


def _decode(key: Key, row: sqlite3.Row) -> Entry:
    return decode(key.kind, key.id, dict(zip(row.keys(), row, strict=True)))


def _repeated(entry: Entry) -> Entry:
    problem = UnreadableValue("id", "Several rows have this id; the first is read, as Merlin does.")
    return entry if problem in entry.problems else entry._replace(problems=(*entry.problems, problem))


def _take(rows: Iterator[_Result], count: int) -> list[_Result]:
    return [row for row, _ in zip(rows, range(count), strict=False)]
