"""Opens an SQLite file, to read and write or only to read, also where nobody may write beside it.

Merlin's files have a write-ahead log, for which SQLite keeps two files beside them. Where it may not make those, it
reads the file only if told that nobody writes to it meanwhile: https://www.sqlite.org/wal.html#read_only_databases
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from server.database.errors import WrongDatabaseError


@dataclass(frozen=True, slots=True)
class SQLiteFile:
    path: Path
    connection: sqlite3.Connection
    seen: tuple[int, ...]
    is_still: bool = False
    """Whether it was opened as one that nobody writes to: any change then makes it another one."""

    def is_another_now(self) -> bool:
        """Raises `OSError`."""
        return _seen(self.path, self.is_still) != self.seen


def open_file(path: Path, *, create: bool, read_only: bool, timeout: float) -> SQLiteFile:
    """`timeout`: seconds to wait for a lock. Raises `WrongDatabaseError`, `sqlite3.Error`, `OSError`."""
    if not path.parent.is_dir():
        hint = "" if path.is_absolute() else f"; for an absolute path write sqlite:////{path}"
        raise WrongDatabaseError(f"Can't open the database {path}: its directory does not exist{hint}.")
    if path.is_dir():
        raise WrongDatabaseError(f"Can't open the database {path}: it is a directory.")
    is_new = not path.exists()
    if is_new and (read_only or not create):
        raise WrongDatabaseError(f"There is no database {path}: correct the path, or make a new one by --create.")
    if is_new:
        path.touch()
    return _to_read(path, timeout) if read_only else _to_write(path, timeout, is_new=is_new)


def _to_write(path: Path, timeout: float, *, is_new: bool) -> SQLiteFile:
    seen = _seen(path, False)
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    if is_new:
        connection.execute("PRAGMA journal_mode=WAL")  # as Merlin: readers and a writer do not wait for each other
    return SQLiteFile(path, connection, seen)


def _to_read(path: Path, timeout: float) -> SQLiteFile:
    for is_still in (False, True):
        seen = _seen(path, is_still)
        uri = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if is_still else ''}"
        connection = sqlite3.connect(uri, timeout=timeout, isolation_level=None, check_same_thread=False, uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if is_still or not _needs_files_beside_it(error) or _log_of(path).exists():
                raise
        else:
            return SQLiteFile(path, connection, seen, is_still)
    raise AssertionError  # the second attempt returns or raises


def _needs_files_beside_it(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _seen(path: Path, is_still: bool) -> tuple[int, ...]:
    status = path.stat()
    if not is_still:
        return status.st_dev, status.st_ino
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, _log_of(path).exists()


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
