"""The count of revisions in SQLite: a table of ours with one row, which Merlin does not read."""

from __future__ import annotations

from server.database.backends.revision_count import MAX_REVISION
from server.database.backends.sqlite_writer import Execute, writing

TABLE = "merlin_graphql_revision"


def read_revision(execute: Execute) -> int:
    """The number; 0 without one."""
    if not execute(f"PRAGMA table_info({TABLE})", ()).fetchone():
        return 0
    (number,) = execute(f"SELECT max(number) FROM {TABLE} WHERE typeof(number) = 'integer'", ()).fetchone()  # noqa: S608 - our own words only
    return number if number is not None and 0 <= number <= MAX_REVISION else 0


def store_revision(execute: Execute, revision: int) -> int:
    """Raises the count to a number, and returns it."""
    with writing(execute):
        raise_revision(execute, revision, 0)
        return read_revision(execute)


def raise_revision(execute: Execute, revision: int, step: int) -> None:
    """Within a transaction: counts so many steps on, from the higher of this number and the one that stands."""
    stored = read_revision(execute)
    number = min(max(stored, revision) + step, MAX_REVISION)
    if number != stored:
        execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (number INTEGER)", ())
        execute(f"DELETE FROM {TABLE}", ())  # noqa: S608 - our own words only
        execute(f"INSERT INTO {TABLE} VALUES (?)", (number,))  # noqa: S608 - as above
