"""Makes queries at random as people write them: each field once, entities that exist, pages within pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from graphql import GraphQLObjectType, GraphQLSchema, get_named_type, is_leaf_type

from tests.support.documents import ASYNCHRONOUS

_ROOTS = ("studies", "runs", "logicalWorkers", "physicalWorkers", "run", "study", "runCounts", "queues", "database")
_PAGES = (1, 2, 5, 10, 20, 50)
_MOST_DEPTH = 5


def natural_query(schema: GraphQLSchema, ids: Mapping[str, Sequence[str]], random: Random) -> str:
    """`ids` of existing entities, by the name of the root field that takes one."""
    root = schema.query_type
    assert root is not None
    chosen = random.sample(_ROOTS, random.randint(1, 3))
    return "{ " + " ".join(_field(root, name, ids, random, 0) for name in chosen) + " }"


def _field(parent: GraphQLObjectType, name: str, ids: Mapping[str, Sequence[str]], random: Random, depth: int) -> str:
    field = parent.fields[name]
    type_ = get_named_type(field.type)
    arguments = ""
    if depth == 0 and name in ids:
        arguments = f'(id: "{random.choice(ids[name])}")'
    elif "first" in field.args:
        arguments = f"(first: {random.choice(_PAGES)})"
    if is_leaf_type(type_):
        return name
    assert isinstance(type_, GraphQLObjectType)
    return f"{name}{arguments} {{ {_selections(type_, ids, random, depth + 1)} }}"


def _selections(type_: GraphQLObjectType, ids: Mapping[str, Sequence[str]], random: Random, depth: int) -> str:
    fields = {name: field for name, field in type_.fields.items() if name not in ASYNCHRONOUS}
    leaves = [name for name, field in fields.items() if is_leaf_type(get_named_type(field.type))]
    lists = [name for name in fields if name not in leaves and name not in ("child", "parent")]
    if type_.name.endswith("Connection"):
        chosen = ["totalCount", "nodes"]
    else:
        chosen = random.sample(leaves, random.randint(1, len(leaves)))
        if lists and depth < _MOST_DEPTH:
            chosen += random.sample(lists, random.randint(0, min(2, len(lists))))
    return " ".join(_field(type_, name, ids, random, depth) for name in chosen)
