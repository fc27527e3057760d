"""What a client's cache holds of each record, beside what the server says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphql import GraphQLObjectType, get_named_type, is_leaf_type

from schema.build import make_schema
from server.database.merlin_database import MerlinDatabase
from tests.support.asking import ask

SCHEMA = make_schema()._schema
TIMES = {"heartbeatAge"}
"""Fields that differ whenever they are asked for."""


async def check_records(database: MerlinDatabase, records: Iterable[Mapping[str, Any]]) -> int:
    """Compares each record, field by field, and returns how many there were. Raises `AssertionError`.

    A record has an `id`, maybe a `__typename`, and fields as a cache keeps them: values, and `{"__ref": …}` or a list
    of these for records elsewhere, each of which ends in an id. What has arguments or no id itself is left out.
    """
    count = 0
    for record in records:
        identity = {name: record[name] for name in ("__typename", "id") if name in record}
        found = (await ask(database, "query ($id: ID!) { node(id: $id) { __typename id } }", id=record["id"]))["node"]
        assert identity.items() <= (found or {}).items(), f"{found} is kept as {record}"
        type_ = SCHEMA.get_type(found["__typename"])
        assert isinstance(type_, GraphQLObjectType)
        kept = {name: _plain(value) for name, value in record.items() if _is_compared(type_, name)}
        selected = " ".join(name if _is_leaf(type_, name) else f"{name} {{ id }}" for name in kept)
        asked = f"query ($id: ID!) {{ node(id: $id) {{ ... on {type_.name} {{ {selected} }} }} }}"
        expected = (await ask(database, asked, id=record["id"]))["node"]
        assert kept == expected, f"{expected} is kept as {kept}"
        count += 1
    return count


def _is_compared(type_: GraphQLObjectType, name: str) -> bool:
    if name not in type_.fields or name in TIMES:
        return False
    return _is_leaf(type_, name) or "id" in get_named_type(type_.fields[name].type).fields


def _is_leaf(type_: GraphQLObjectType, name: str) -> bool:
    return is_leaf_type(get_named_type(type_.fields[name].type))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict) and "__ref" in value:
        return {"id": value["__ref"].rpartition(":")[2]}
    if isinstance(value, dict) and "__refs" in value:
        return [{"id": id_} for id_ in value["__refs"]]
    return value
