"""Merlin's SQLite file (the SQL of reading): a table a kind, a text column a field, no keys and no indexes.

On one thread of its own. The file is open only while it is used: see `sqlite_file.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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
from server.database.backends.codec import Dialect, Raw, encode
from server.database.backends.notes import Note, NoteKey
from server.database.backends.portions import SCAN_BATCH, portions
from server.database.backends.sqlite_columns import COLUMNS, Columns, outdated, required_dialect
from server.database.backends.sqlite_file import FileState, SQLiteFile, translated
from server.database.backends.sqlite_notes import GivenNotes
from server.database.backends.sqlite_path import path_of
from server.database.backends.sqlite_revision import raise_revision, read_revision, store_revision
from server.database.backends.sqlite_rows import (
    BATCH,
    Fingerprints,
    entry_of,
    fingerprint_of,
    key_of,
    length_of,
    note,
    raw_of,
    repeated_entry,
    where_ids,
)
from server.database.backends.sqlite_writer import Conflict, Withdrawal, insert, write, writing
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.models import KINDS, EntityKind, Entry, Key, Model

_NAME_COLUMN = {EntityKind.STUDY: "name", EntityKind.RUN: "workspace", EntityKind.PHYSICAL_WORKER: "name"}
_LOCK_WAIT = 5.0
"""Seconds, as Merlin waits."""
_POLL_INTERVAL = 0.1
_POLL_SHARE = 2
"""After comparing everything: pause this many times as long as it took."""
_PAUSE = 0.5
_LONGEST_USE = 0.05
"""Seconds for which a comparison has the file open at once: meanwhile others can't remove its write-ahead log."""
_BEFORE_ANY_ROW = -(2**63)
_Place = tuple[int, int]
"""The number of a table, and that of a row after which to go on."""
_FIRST = (0, _BEFORE_ANY_ROW)
_Result = TypeVar("_Result")


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
        self._seen: FileState
        """The state of the file up to which every change was given."""
        self._given: Fingerprints = {}
        """What was read last of every key. Compared with what stands there, it misses no change that is undone soon."""
        self._notes = GivenNotes(self._execute)
        self._loads = 0
        """Under way; until they end, it is not known what was given."""
        self._is_closed = False
        self._barriers = Barriers()

    async def open(self) -> None:
        await self._run_closed(self._open)

    async def close(self) -> None:
        if not self._is_closed:
            await self._run_closed(lambda: None)  # after what was begun
            self._is_closed = True
            self._thread.shutdown()

    async def get_version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        done, total = 0, await self._run(lambda: sum(map(self._count, EntityKind)))
        await self.read_revision()
        given: Fingerprints = {}
        self._loads += 1
        try:
            for kind in EntityKind:
                repeated: set[Key] = set()
                after = _BEFORE_ANY_ROW
                while batch := await self._run(partial(self._page, kind, after, BATCH)):
                    after = batch[-1][1]["_row"]
                    entries = []
                    for key, raw in batch:
                        if key in given:
                            repeated.add(key)
                        else:
                            entries.append(entry_of(key, raw))
                        note(given, key, fingerprint_of(raw))
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
                for portion in portions(page, length_of):
                    after = portion[-1][1]["_row"]
                    progress(min(passed + max(after, 0), total), total)
                    yield [entry_of(key, row) for key, row in portion]
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
        return await self._run(self._notes.load)

    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        return await self._run(lambda: self._notes.under(keys))

    async def fetch_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        return await self._run(lambda: self._notes.fetch(keys))

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
        self.revisions.note_stored(await self._run(partial(read_revision, self._execute)))

    async def store_revision(self, revision: int) -> None:
        self.revisions.note_stored(await self._run(partial(store_revision, self._execute, revision)))

    async def synchronize(self) -> None:
        await self._barriers.join()

    async def watch(self) -> AsyncGenerator[Notice]:
        while True:
            try:
                await self._run_closed(self._reopen)
                columns = await self._run(self._all_columns)
                yield Reload()
                pause = _POLL_INTERVAL
                while True:
                    await asyncio.sleep(pause)
                    pause = _POLL_INTERVAL
                    with self._barriers.look():
                        if not await self._run_closed(self._is_changed):
                            yield Alive()
                            continue
                        while self._loads:  # nobody is let through before the comparison
                            yield Alive()
                            await asyncio.sleep(_POLL_INTERVAL)
                        started = time.monotonic()
                        keys, notes, now_columns = await self._run_closed(self._compare)
                        took = time.monotonic() - started
                        pause = max(_POLL_INTERVAL, _POLL_SHARE * took)
                        self.notice_delay = max(type(self).notice_delay, 2 * (pause + took))
                        yield Changed(keys, notes=notes)
                    if any(names not in ((), columns[kind]) for kind, names in now_columns.items()):
                        yield Reload()  # the same rows mean something else now
                    columns = {kind: names or columns[kind] for kind, names in now_columns.items()}
            except BackendError as error:
                yield Lost(str(error))
                await asyncio.sleep(_PAUSE)

    async def _run(self, step: Callable[[], _Result]) -> _Result:
        """With the file open."""
        return await self._run_closed(lambda: self._use(step))

    async def _run_closed(self, step: Callable[[], _Result]) -> _Result:
        if self._is_closed:
            raise BackendUnavailableError(f"The database {self.path} is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except (sqlite3.Error, OSError) as error:
            raise translated(error, self.path) from error

    # What follows runs on the thread.

    def _open(self) -> None:
        file = SQLiteFile(self.path, read_only=self._read_only, timeout=_LOCK_WAIT)
        file.make_if_missing(create=self._create)
        self._seen = file.settled_state()
        self._file = file
        self._use(self._make_tables)

    def _opened(self) -> SQLiteFile:
        if self._file is None:
            raise BackendUnavailableError(f"The database {self.path} is not open.")
        return self._file

    def _use(self, step: Callable[[], _Result]) -> _Result:
        use = self._opened().use(step, self._seen)
        self._seen = (use.end or self._seen) if use.start == self._seen else self._seen
        return use.result

    def _reopen(self) -> None:
        """Takes whatever stands there now for the file. One that became empty must stay so: it may be written soon."""
        state = self._opened().settled_state()
        if state.size == 0 and state != self._seen:
            self._seen = state
            raise BackendUnavailableError(f"The database file {self.path} was emptied.")
        self._seen = state
        self._opened().forget()
        self._use(self._check_tables)

    def _is_changed(self) -> bool:
        return self._opened().state() != self._seen

    def _check_tables(self) -> set[str]:
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
        return tables

    def _make_tables(self) -> None:
        tables = self._check_tables()
        for kind in () if self._read_only else set(EntityKind) - tables:
            columns = ", ".join(f"{name} TEXT" for name in COLUMNS[kind])
            self._execute(f"CREATE TABLE IF NOT EXISTS {kind} ({columns})")

    def _compare(self) -> tuple[frozenset[Key], frozenset[NoteKey], Columns]:
        """Where something else stands now than was given, and the columns in which it stands."""
        file, known, standing = self._opened(), self._seen, dict[Key, int]()
        use = file.use(lambda: (self._notes.differing(), self._all_columns(), self._look(_FIRST)), known)
        (notes, columns, (keys, fingerprints, place)), seen = use.result, use.end
        while True:
            for key, fingerprint in zip(keys, fingerprints, strict=True):
                note(standing, key, fingerprint)
            if place is None:
                break
            look = file.use(partial(self._look, place), known)
            keys, fingerprints, place = look.result
            seen = look.end if look.start == seen else None
        self._seen = seen or known._replace(changed_at=0)  # others wrote meanwhile: compare again
        return frozenset(key for key, _ in standing.items() ^ self._given.items()), notes, columns

    def _look(self, place: _Place) -> tuple[list[Key], list[int], _Place | None]:
        """What stands from there on, and where to go on."""
        until = time.monotonic() + _LONGEST_USE
        first, after = place
        keys: list[Key] = []
        fingerprints: list[int] = []
        for number, kind in enumerate(EntityKind):
            if number < first:
                continue
            with closing(self._rows(kind, "WHERE rowid > ?", (after,))) as rows:
                for key, row in rows:
                    keys.append(key)
                    fingerprints.append(fingerprint_of(row))
                    if not len(keys) % BATCH and time.monotonic() > until:
                        return keys, fingerprints, (number, row["_row"])
            after = _BEFORE_ANY_ROW
        return keys, fingerprints, None

    def _execute(self, statement: str, parameters: Collection[Any] = ()) -> sqlite3.Cursor:
        return self._opened().execute(statement, parameters)

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
    ) -> Generator[tuple[Key, sqlite3.Row]]:
        """In the order of insertion: of several rows with one id, Merlin reads the first."""
        if not self._columns(kind):
            return
        statement = f"SELECT rowid AS _row, * FROM {kind} {where} ORDER BY rowid {limit}"  # noqa: S608 - our own words only
        with closing(self._execute(statement, parameters)) as rows:
            for row in rows:
                yield key_of(kind, row), row

    def _page(self, kind: EntityKind, after: int, size: int) -> list[tuple[Key, sqlite3.Row]]:
        """Read to its end: a statement that stays open would keep us from writing, and others from a checkpoint."""
        return list(self._rows(kind, "WHERE rowid > ?", (after,), f"LIMIT {size}"))

    def _fetch(self, keys: Collection[Key], given: Fingerprints) -> list[Entry]:
        entries: dict[Key, Entry] = {key: Entry(key, None) for key in keys}
        for key in keys:
            given.pop(key, None)
        for kind in {key.kind for key in keys}:
            for key, raw in self._rows(kind, *where_ids([key.id for key in keys if key.kind is kind])):
                if key not in entries:
                    continue
                note(given, key, fingerprint_of(raw))
                if entries[key].record is None and not entries[key].problems:
                    entries[key] = entry_of(key, raw)
                else:
                    entries[key] = repeated_entry(entries[key])
        return list(entries.values())

    def _name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        owners: dict[str, str] = {}
        column = _NAME_COLUMN.get(kind)
        if column not in self._columns(kind):
            return owners
        wanted = list(names)
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            for key, row in self._rows(kind, f"WHERE {column} IN ({', '.join('?' * len(some))})", some):
                owners.setdefault(row[column], key.id)
        return owners

    def _read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        return {key: raw_of(rows[0]) if rows else None for key, rows in self._all_rows(keys).items()}

    def _all_rows(self, keys: Collection[Key]) -> dict[Key, list[sqlite3.Row]]:
        found: dict[Key, list[sqlite3.Row]] = {key: [] for key in keys}
        for kind in {key.kind for key in keys}:
            for key, row in self._rows(kind, *where_ids([key.id for key in keys if key.kind is kind])):
                if key in found:
                    found[key].append(row)
        return found

    def _commit(self, batch: WriteSet, withdrawal: Withdrawal) -> bool:
        self._make_tables()
        try:
            with writing(self._execute):
                start = self._opened().state()
                standing = self._all_rows({*batch.read, *batch.written})
                write(
                    self._execute,
                    batch,
                    standing={key: raw_of(rows[0]) for key, rows in standing.items() if rows},
                    rows={key: [row["_row"] for row in rows] for key, rows in standing.items()},
                    owners=self._name_owners,
                    columns=self._columns,
                    notes=self._notes.under,
                    now=time.time(),
                    is_touched=lambda: self._opened().is_touched_since(start),
                )
                raise_revision(self._execute, self.revisions.own, 1)
                withdrawal.check()
        except Conflict:
            return False
        return True

    def _insert(self, records: Iterable[Model]) -> None:
        self._make_tables()
        dialect = required_dialect(self._all_columns())
        insert(self._execute, self._columns, ((KINDS[type(record)], encode(record, dialect)) for record in records))
