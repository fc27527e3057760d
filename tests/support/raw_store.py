"""What stands in a backend's store, as text, read and written behind the server's back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import Any

import redis

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import decode, is_entity_id
from server.database.backends.memory import MemoryBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.effects import Action, Effect
from server.database.models import EntityKind, Key, Model

OURS = "merlin_graphql_"
"""The names of the server's own tables begin so."""


@dataclass
class Stored:
    records: dict[Key, dict[str, Any]] = field(default_factory=dict)
    names: dict[EntityKind, dict[str, str]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    """What is not Merlin's, by key or table."""

    def model(self, key: Key) -> Model | None:
        return decode(key.kind, key.id, self.records[key]).record if key in self.records else None

    def difference(self, after: Stored) -> dict[Key, Effect]:
        """What changed since, and that no stored field changed but those of the models."""
        effects = {}
        for key in sorted({*self.records, *after.records}):
            old, new = self.records.get(key), after.records.get(key)
            if old is None or new is None:
                effects[key] = Effect(Action.CREATED if old is None else Action.DELETED, key)
            elif old != new:
                assert old.keys() <= new.keys()
                one, other = self.model(key), after.model(key)
                assert one is not None
                changed = tuple(
                    item.name for item in fields(one) if getattr(one, item.name) != getattr(other, item.name)
                )
                assert len(changed) == sum(old.get(name) != new[name] for name in new)
                effects[key] = Effect(Action.UPDATED, key, changed)
        return effects


def read_store(backend: ResultsBackend) -> Stored:
    if isinstance(backend, MemoryBackend):
        names = {kind: dict(names) for kind, names in backend._names.items() if names}
        return Stored({key: dict(raw) for key, raw in backend._records.items()}, names)
    stored = Stored()
    if isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path)) as connection:
            connection.row_factory = sqlite3.Row
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                if table.startswith(OURS):
                    continue
                rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
                if table in tuple(EntityKind):
                    stored.records |= {Key(EntityKind(table), row["id"]): row for row in rows}
                else:
                    stored.others[table] = rows
        return stored
    with redis.Redis.from_url(backend.connection, decode_responses=True, protocol=2) as client:
        for name in client.scan_iter():
            kind, _, id_ = name.partition(":")
            if kind in tuple(EntityKind) and is_entity_id(id_):
                stored.records[Key(EntityKind(kind), id_)] = client.hgetall(name)
            elif kind in tuple(EntityKind) and id_ == "name":
                stored.names[EntityKind(kind)] = client.hgetall(name)
            elif not name.startswith("merlin-graphql:"):
                stored.others[name] = client.hgetall(name) if client.type(name) == "hash" else client.get(name)
    return stored


def change(backend: ResultsBackend, key: Key, values: Mapping[str, str]) -> None:
    """Some fields of a record, as another process writes them."""
    if isinstance(backend, MemoryBackend):
        backend.store(key, {**backend._records.get(key, {}), **values})
    elif isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path, timeout=5, isolation_level=None)) as connection:
            settings = ", ".join(f"{name} = ?" for name in values)
            connection.execute(f"UPDATE {key.kind} SET {settings} WHERE id = ?", (*values.values(), key.id))
    else:
        with redis.Redis.from_url(backend.connection, protocol=2) as client:
            client.hset(str(key), mapping=dict(values))


def name_in_map(backend: ResultsBackend, kind: EntityKind, name: str, id_: str | None) -> None:
    """An entry of a name map, as another process writes it; None drops it."""
    if isinstance(backend, MemoryBackend):
        backend._names[kind].pop(name, None)
        if id_ is not None:
            backend._names[kind][name] = id_
    else:
        with redis.Redis.from_url(backend.connection, protocol=2) as client:
            if id_ is None:
                client.hdel(f"{kind}:name", name)
            else:
                client.hset(f"{kind}:name", name, id_)
