"""The rows of Merlin's tables: whose they are, what they hold, and whether they differ from what was read before."""

from __future__ import annotations

import sqlite3
from typing import TypeAlias

from server.database.backends.codec import Raw, decode, is_entity_id
from server.database.models import EntityKind, Entry, Key, UnreadableValue

BATCH = 500
"""Rows that are asked for at once."""

Fingerprints: TypeAlias = dict[Key, int]


def where_ids(ids: list[str]) -> tuple[str, list[str]]:
    if len(ids) > BATCH or not all(map(is_entity_id, ids)):
        return "", []  # all are looked at: once is cheaper for many, and a row without id is found by its number
    return f"WHERE id IN ({', '.join('?' * len(ids))})", ids


def key_of(kind: EntityKind, row: sqlite3.Row) -> Key:
    id_ = row["id"]
    return Key(kind, id_ if isinstance(id_, str) else f"row {row['_row']}")


def raw_of(row: sqlite3.Row) -> Raw:
    return {name: row[name] for name in row.keys() if name != "_row"}  # noqa: SIM118 - a row is no mapping


def length_of(item: tuple[Key, sqlite3.Row]) -> int:
    return sum(len(value) for value in item[1] if isinstance(value, str))


def fingerprint_of(row: sqlite3.Row) -> int:
    return hash(tuple(row))


def note(fingerprints: Fingerprints, key: Key, fingerprint: int) -> None:
    """Of a key with several rows, all of them count."""
    fingerprints[key] = hash((fingerprints.get(key), fingerprint))


def entry_of(key: Key, row: sqlite3.Row) -> Entry:
    return decode(key.kind, key.id, dict(zip(row.keys(), row, strict=True)))


def repeated_entry(entry: Entry) -> Entry:
    problem = UnreadableValue("id", "Several rows have this id; the first is read, as Merlin does.")
    return entry if problem in entry.problems else entry._replace(problems=(*entry.problems, problem))
