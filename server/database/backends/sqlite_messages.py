"""Messages between servers of one SQLite database, in a table beside Merlin's."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from server.database.backends.sqlite_writer import Execute, writing

TABLE = "merlin_graphql_messages"
"""There is none before the first message."""


def leave(execute: Execute, board: str, message: str, at: float, most: int) -> None:
    with writing(execute):
        execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (board TEXT, message TEXT, at REAL, PRIMARY KEY (board, message))", ()
        )
        execute(f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?)", (board, message, at))  # noqa: S608 - our own word
        execute(
            f"DELETE FROM {TABLE} WHERE board = ? AND message NOT IN"  # noqa: S608 - our own word
            f" (SELECT message FROM {TABLE} WHERE board = ? ORDER BY at DESC LIMIT ?)",
            (board, board, most),
        )


def read(execute: Execute, board: str, since: float) -> Mapping[str, float]:
    try:
        rows = execute(f"SELECT message, at FROM {TABLE} WHERE board = ? AND at >= ?", (board, since)).fetchall()  # noqa: S608 - our own word
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return {}
        raise
    return {row["message"]: row["at"] for row in rows}
