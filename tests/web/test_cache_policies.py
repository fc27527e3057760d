"""The caches of docs/clients.md know every list, page and record of the schema: a field that joins it joins them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_object_type,
)

from schema.build import make_schema
from server.database.models import EntityKind
from tests.support.javascript import asked, needs, project
from tests.support.pages import block

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
SCHEMA = make_schema()._schema
PARTS = re.compile("Connection$|Edge$|Payload$|Change$|^(Mutation|Subscription|Effect|UserError|PageInfo|__.*)$")
"""Types that no cache reads again, or that come whole with a list."""


def kept_fields() -> Iterator[tuple[GraphQLObjectType, str, GraphQLField]]:
    for type_ in SCHEMA.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not PARTS.search(type_.name):
            for name, field in type_.fields.items():
                yield type_, name, field


def pages() -> set[str]:
    return {
        f"{type_.name}.{name}"
        for type_, name, field in kept_fields()
        if get_named_type(field.type).name.endswith("Connection")
    }


def lists_of_objects() -> set[str]:
    return {
        f"{type_.name}.{name}"
        for type_, name, field in kept_fields()
        if is_list_type(get_nullable_type(field.type)) and hasattr(get_named_type(field.type), "fields")
    }


def parts() -> set[str]:
    """Types without an id that a field holds by itself."""
    return {
        named.name
        for _, _, field in kept_fields()
        if is_object_type(named := get_named_type(field.type))
        and "id" not in named.fields
        and not is_list_type(get_nullable_type(field.type))
        and not PARTS.search(named.name)
    }


@pytest.fixture
async def policies(tmp_path: Path) -> dict[str, Any]:
    cache = block("docs/clients.md", "// apollo/cache.js\n", "js")
    directory = project(tmp_path / "apollo", HERE / "apollo" / "policies.js", cache=cache)
    found: dict[str, Any] = await asked(directory, "policies.js", None)
    return found


@needs("@apollo/client")
async def test_apollos_policies_cover_the_schema(policies: dict[str, Any]) -> None:
    """Pages are joined, lists are replaced, what has no id is merged, and a record is looked up by its id."""
    interface = SCHEMA.get_type("Node")
    assert isinstance(interface, GraphQLInterfaceType)
    assert policies["possibleTypes"] == {"Node": sorted(type_.name for type_ in SCHEMA.get_possible_types(interface))}
    fields = policies["fields"]
    assert {name for name, how in fields.items() if how == "filter,orderBy"} == pages()
    assert {name for name, how in fields.items() if how == "replaced"} == lists_of_objects()
    assert {name for name, how in policies["types"].items() if how} == parts()
    assert SCHEMA.query_type is not None
    by_id = {f"Query.{name}" for name, field in SCHEMA.query_type.fields.items() if "id" in field.args} - {"Query.node"}
    assert {name for name, how in fields.items() if how == "looked up"} == by_id


def test_graphcache_joins_every_page() -> None:
    """It is told of each field that has pages."""
    text = block("docs/clients.md", "// urql/cache.js\n", "js")
    resolvers = text[text.index("resolvers: {") : text.index("updates: {")]
    found = {
        f"{type_}.{name}"
        for type_, fields in re.findall(r"(\w+): \{ ([^{}]*) \}", resolvers)
        for name in re.findall(r"(\w+): pages", fields)
    }
    assert found == pages()


@pytest.mark.parametrize("recipe", ["apollo/effects.js", "urql/cache.js"])
def test_effects_of_every_kind_are_forgotten(recipe: str) -> None:
    """With the name of their type, and with every field at the root that depends on records."""
    text = block("docs/clients.md", f"// {recipe}\n", "js")
    types = dict(re.findall(r'([A-Z_]+): "(\w+)"', text))
    assert types == {kind.name: kind.name.title().replace("_", "") for kind in EntityKind}
    (listed,) = re.findall(r"LISTS = \[(.*?)\]", text, re.DOTALL)
    at_root = {name.removeprefix("Query.") for name in pages() | lists_of_objects() if name.startswith("Query.")}
    assert set(re.findall(r'"(\w+)"', listed)) == at_root - {"nodes", "liveWorkers"} | {"database", "integrity"}
