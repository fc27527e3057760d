"""Other users of a database, who write to it by its plain driver and know nothing of this server."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import redis

from server.database.backends.codec import CURRENT, Dialect, encode
from server.database.models import KINDS, EntityKind, Key, Model, name_of

DIALECTS = Path(__file__).parents[1] / "data" / "dialects"


class Writer(ABC):
    @abstractmethod
    def create(self, *records: Model) -> None: ...

    @abstractmethod
    def update(self, key: Key, **fields: str) -> None: ...

    @abstractmethod
    def delete(self, *keys: Key) -> None: ...

    @abstractmethod
    def flush(self) -> None:
        """As Merlin does: everything goes, and not only Merlin's own."""

    def close(self) -> None:  # noqa: B027 - with a connection per statement nothing is open
        pass

    def save(self, record: Model) -> None:
        """Every field anew, as Merlin does."""
        self.update(key_of(record), **encode(record))


def key_of(record: Model) -> Key:
    return Key(KINDS[type(record)], record.id)


class RedisWriter(Writer):
    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, decode_responses=True, protocol=2)

    def create(self, *records: Model) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for record in records:
                key = key_of(record)
                pipeline.hset(str(key), items=_flat(encode(record)))
                if (name := name_of(record)) is not None:
                    pipeline.hset(f"{key.kind}:name", name, record.id)
            pipeline.execute()

    def update(self, key: Key, **fields: str) -> None:
        self.put(str(key), fields)

    def put(self, name: str, fields: Mapping[str, str]) -> None:
        """A hash under any key."""
        self.client.hset(name, items=_flat(fields))

    def delete(self, *keys: Key) -> None:
        self.client.delete(*map(str, keys))

    def flush(self) -> None:
        self.client.flushdb()

    def close(self) -> None:
        self.client.close()


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


class SQLiteWriter(Writer):
    """A connection per statement, as Merlin's."""

    def __init__(self, path: Path, dialect: Dialect = CURRENT) -> None:
        self.path = path
        self.dialect = dialect

    def run(self, statement: str, *parameters: Any) -> None:
        with closing(self._connection()) as connection:
            connection.execute(statement, parameters)

    def create(self, *records: Model) -> None:
        with closing(self._connection()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for record in records:
                fields = encode(record, self.dialect)
                marks = ", ".join("?" * len(fields))
                statement = f"INSERT INTO {key_of(record).kind} ({', '.join(fields)}) VALUES ({marks})"
                connection.execute(statement, tuple(fields.values()))
            connection.execute("COMMIT")

    def update(self, key: Key, **fields: str) -> None:
        assignments = ", ".join(f"{name} = ?" for name in fields)
        self.run(f"UPDATE {key.kind} SET {assignments} WHERE id = ?", *fields.values(), key.id)

    def delete(self, *keys: Key) -> None:
        for key in keys:
            self.run(f"DELETE FROM {key.kind} WHERE id = ?", key.id)

    def flush(self) -> None:
        for kind in EntityKind:
            self.run(f"DROP TABLE IF EXISTS {kind}")

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        return connection


def writer_to(url: str) -> Writer:
    if url.startswith("sqlite:///"):
        return SQLiteWriter(Path(unquote(url.removeprefix("sqlite:///"))))
    return RedisWriter(url)


def merlins_tables(version: str = "2.0.0b4") -> Iterable[str]:
    """The statements by which a Merlin makes its tables."""
    recording = json.loads((DIALECTS / f"{version}.json").read_text())
    return [table["sql"] for table in recording["sqlite"].values()]


def merlins_file(path: Path, version: str = "2.0.0b4") -> SQLiteWriter:
    """An empty database file, as a Merlin makes it."""
    writer = SQLiteWriter(path, CURRENT if version == "2.0.0b4" else Dialect(run_status=False, worker_status=False))
    for statement in merlins_tables(version):
        writer.run(statement)
    return writer
