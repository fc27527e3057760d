"""An SQLite file, opened for each use and closed after it, so that it may be replaced by another at any time.

While anybody has a file open, SQLite keeps a write-ahead log beside it (`-wal`), which belongs to it by its name only.
Whoever then puts another file in its place leaves it a log that is not its own: https://www.sqlite.org/howtocorrupt.html
Who closes last removes the log, so a file that nobody uses has none.

To read only, a file without a log is read as one that nobody writes to, which makes nothing beside it, and is read
again if somebody did write: https://www.sqlite.org/wal.html#read_only_databases
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import quote

from server.database.errors import BackendError, BackendUnavailableError, UnknownOutcomeError, WrongDatabaseError

_Result = TypeVar("_Result")
_COARSE_CLOCK = 5
"""`CLOCK_REALTIME_COARSE` of Linux: its file systems say by this clock when a file was changed."""
_LONGEST_TICK = 0.02
"""Seconds to wait for that clock at most: the file system of another machine has another clock."""
_PAUSE = 0.001
_ATTEMPTS = 5
_LOG_PATIENCE = 0.1
"""Seconds until a server that only reads opens a file that others have open; Merlin has it open for milliseconds."""


class FileState(NamedTuple):
    """What differs after each commit, and for another file, as far as it is told without opening the file.

    It must not be read from the file: closing a descriptor of a file ends all locks that this process has on it.
    """

    device: int
    inode: int
    size: int
    changed_at: int
    """Nanoseconds since 1970."""
    log: tuple[int, int, int] | None
    """Inode, size and change of the write-ahead log; None where that is empty."""

    def is_replaced_by(self, other: FileState) -> bool:
        """Whether no commit makes this file the other: only VACUUM makes a file smaller.

        A copy onto a file that makes it no smaller is told from a commit by the number of its schema at best.
        """
        return self[:2] != other[:2] or other.size < self.size


@dataclass(frozen=True, slots=True)
class Use(Generic[_Result]):
    result: _Result
    start: FileState
    end: FileState | None
    """None if others committed meanwhile. Whatever anybody writes after it makes another state."""


class SQLiteFile:
    """For one thread at a time. Its methods raise `BackendError`, `sqlite3.Error` and `OSError`."""

    def __init__(self, path: Path, *, read_only: bool, timeout: float) -> None:
        """`timeout`: seconds to wait for a lock."""
        self.path = path
        self._read_only = read_only
        self._timeout = timeout
        self._connection: sqlite3.Connection | None = None
        self._log_inode: int | None = None
        self._schema = 0
        """The number of the schema, as it was seen last; 0 while none was."""

    def make_if_missing(self, *, create: bool) -> None:
        """Raises `WrongDatabaseError` where there can't be a file, or there is none and none is to be made."""
        path = self.path
        if not path.parent.is_dir():
            hint = "" if path.is_absolute() else f"; for an absolute path write sqlite:////{path}"
            raise WrongDatabaseError(f"Can't open the database {path}: its directory does not exist{hint}.")
        if path.is_dir():
            raise WrongDatabaseError(f"Can't open the database {path}: it is a directory.")
        if path.exists():
            return
        if self._read_only or not create:
            raise WrongDatabaseError(f"There is no database {path}: correct the path, or make a new one by --create.")
        path.touch()
        with closing(self._connect("rw")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # as Merlin: readers and a writer do not wait for each other

    def state(self) -> FileState:
        status = self.path.stat()
        log = None
        with suppress(FileNotFoundError):
            beside = self._beside("-wal").stat()
            log = (beside.st_ino, beside.st_size, beside.st_mtime_ns) if beside.st_size else None
        return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, log)

    def settled_state(self) -> FileState:
        """A state that no later write leaves the same: the tick of the clock in which the last one came is over."""
        until = time.monotonic() + _LONGEST_TICK
        while True:
            now = time.clock_gettime_ns(_COARSE_CLOCK)
            state = self.state()
            if max(state.changed_at, state.log[2] if state.log else 0) < now or time.monotonic() > until:
                return state
            time.sleep(_PAUSE)

    def execute(self, statement: str, parameters: Collection[object] = ()) -> sqlite3.Cursor:
        """Within the step of a use."""
        if self._connection is None:
            raise BackendUnavailableError(f"The database {self.path} is not open.")
        return self._connection.execute(statement, tuple(parameters))

    def use(self, step: Callable[[], _Result], known: FileState) -> Use[_Result]:
        """Opens the file for one step, which is repeated where it could only read while others wrote.

        Raises `BackendUnavailableError` if another file stands there than the known one, or comes there meanwhile.
        """
        if not self._read_only:
            return self._use(step, known, "rw")
        for _ in range(_ATTEMPTS):
            start = self._state_without_log()
            if start is None:
                break
            try:
                use = self._use(step, known, "ro&immutable=1")
            except sqlite3.DatabaseError:  # what is written to meanwhile may look malformed
                if self.state() == start:
                    raise
            else:
                if use.start == use.end:
                    return use
        return self._use(step, known, "ro")

    def is_touched_since(self, start: FileState) -> bool:
        """To be asked before a commit: whether others wrote into the file since the transaction began.

        Raises `BackendUnavailableError` if it was replaced.
        """
        now = self.state()
        self._check(start, now)
        (mode,) = self.execute("PRAGMA journal_mode").fetchone()
        return (
            str(mode) == "wal" and now.changed_at != start.changed_at
        )  # else a long transaction writes into it itself

    def forget(self) -> None:
        """Takes whatever stands there now for the file."""
        self._schema = 0

    def _use(self, step: Callable[[], _Result], known: FileState, mode: str) -> Use[_Result]:
        start = self.settled_state() if "immutable" in mode else None
        if self.state()[:2] != known[:2]:  # opened, it would take the log that somebody else still has of the old file
            raise self._replaced()
        with self._without_orphan(mode), closing(self._connect(mode)) as connection:
            self._connection = connection
            try:
                version = self._version()
                self._log_inode = self._inode_of_log()
                start = start or self.state()
                self._check_opened(known, start)
                result = step()
                try:
                    return Use(result, start, self._end(known, start, version))
                except (sqlite3.Error, OSError):  # a lock, say: what the step did is done
                    return Use(result, start, None)
            finally:
                self._connection = None

    @contextmanager
    def _without_orphan(self, mode: str) -> Iterator[None]:
        """Removes the log of a file that was replaced while it was open here: SQLite leaves it then, even when closed.

        Whoever opened the new file would write the old log into it. A log that others made since is not touched.
        """
        before = self.state()[:2]
        try:
            yield
        finally:
            log, self._log_inode = self._log_inode, None
            with suppress(OSError):
                if mode == "rw" and log and self.state()[:2] != before and self._inode_of_log() == log:
                    self._beside("-wal").unlink()

    def _inode_of_log(self) -> int | None:
        with suppress(FileNotFoundError):
            return self._beside("-wal").stat().st_ino
        return None

    def _end(self, known: FileState, start: FileState, version: int) -> FileState | None:
        """Leaves no log, where nobody else reads it."""
        try:
            before = self.state()
            self._check(start, before)
            if not self._read_only and before.log is not None:
                self._empty_log()
                before = self.state()  # somebody's VACUUM makes the file smaller only now
            end = self._end_state(known, start)
            self._check(before, end)
        except BackendUnavailableError as error:
            if self._connection and self._connection.total_changes and self.state()[:2] == start[:2]:
                message = f"{error} Whether the change was made is not known: check before you try again."
                raise UnknownOutcomeError(message) from None
            raise
        return end if self._version() == version else None

    def _check_opened(self, known: FileState, now: FileState) -> None:
        """VACUUM gives the schema a higher number; a backup has one that is no higher, and often a lower one."""
        (schema,) = self.execute("PRAGMA schema_version").fetchone()
        is_vacuumed = 0 < self._schema < schema and now[:2] == known[:2] and now.size > 0
        if schema < self._schema or (not is_vacuumed and known.is_replaced_by(now)):
            raise self._replaced()
        self._schema = schema

    def _replaced(self) -> BackendUnavailableError:
        return BackendUnavailableError(f"The database file {self.path} was replaced.")

    def _end_state(self, known: FileState, start: FileState) -> FileState:
        """One that no later write leaves the same. After a write of ours, that is made so instead of waited for."""
        state = self.state()
        if state == known:
            return state
        if state == start or self._read_only or not self._stamp(state):
            return self.settled_state()
        return self.state()

    def _stamp(self, state: FileState) -> bool:
        """Gives the files a time of change that no other write gives them; False if they are another user's."""
        now = time.time_ns()
        try:
            os.utime(self.path, ns=(now, now))
            if state.log is not None:
                os.utime(self._beside("-wal"), ns=(now, now))
        except (PermissionError, FileNotFoundError):
            return False
        return True

    def _check(self, known: FileState, now: FileState) -> None:
        if known.is_replaced_by(now):
            raise self._replaced()

    def _empty_log(self) -> None:
        """Moves into the file what its log holds, as far as nobody reads that, so that no log outlives this use."""
        with suppress(sqlite3.OperationalError):  # such as a full disk: what was committed stands in the log
            self.execute("PRAGMA busy_timeout=0")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _version(self) -> int:
        """Another one when others have committed since the connection was opened."""
        (version,) = self.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _connect(self, mode: str) -> sqlite3.Connection:
        """Never makes a file."""
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?mode={mode}",
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text  # else one text that is no UTF-8 makes its whole table unreadable
        return connection

    def _beside(self, ending: str) -> Path:
        """SQLite keeps its files beside the file itself, not beside a link to it."""
        return Path(f"{os.path.realpath(self.path)}{ending}")

    def _state_without_log(self) -> FileState | None:
        """None if somebody has the file open for longer than Merlin does, or left it in the middle of a commit."""
        until = time.monotonic() + _LOG_PATIENCE
        while True:
            state = self.state()
            if state.log is None and not self._beside("-journal").exists():
                return state
            if time.monotonic() > until:
                return None
            time.sleep(_PAUSE)


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")


def translated(error: Exception, path: Path) -> BackendError:
    """An error of SQLite or of the system, in words that say what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return WrongDatabaseError(f"{path} is no SQLite database.")
    if code == sqlite3.SQLITE_BUSY:
        return BackendUnavailableError(f"The database sqlite:///{path} stays locked by another process: try again.")
    if code == sqlite3.SQLITE_READONLY:
        return BackendUnavailableError(
            f"The database sqlite:///{path}, or its directory, is read-only: serve it with --read-only."
        )
    return BackendUnavailableError(f"Can't read the database sqlite:///{path}: {error}.")
