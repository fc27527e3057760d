"""Who may do what: the role table, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

import pytest
from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLType,
    get_named_type,
    is_enum_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.operation import OperationError
from schema.roles import REQUIRED_ROLES, Role, required_role_of
from server.database.merlin_database import opened
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

STRAWBERRY = make_schema()
SCHEMA = STRAWBERRY._schema
OPERATIONS = Engine(STRAWBERRY)
WAYS = {"compiled": OPERATIONS, "general": Engine(STRAWBERRY, compiled=False)}


def object_types() -> Iterator[GraphQLObjectType]:
    for name, type_ in SCHEMA.type_map.items():
        if isinstance(type_, GraphQLObjectType) and not name.startswith("__"):
            yield type_


FIELDS = {f"{type_.name}.{name}": field for type_ in object_types() for name, field in type_.fields.items()}
ROOT_FIELDS = sorted(name for name in FIELDS if name.partition(".")[0] in ("Query", "Mutation", "Subscription"))


def literal(type_: GraphQLType) -> str:
    """Some value of an input type, with all that it needs."""
    if is_non_null_type(type_):
        return literal(type_.of_type)
    if is_list_type(type_):
        return "[]"
    if isinstance(type_, GraphQLInputObjectType):
        needed = {name: field for name, field in type_.fields.items() if is_non_null_type(field.type)}
        if type_.is_one_of:
            needed = dict([next(iter(type_.fields.items()))])
        return "{" + ", ".join(f"{name}: {literal(field.type)}" for name, field in needed.items()) + "}"
    if is_enum_type(type_):
        return str(next(iter(type_.values)))
    return {"Int": "1", "Boolean": "false", "String": '"x"', "ID": '"x"', "JSON": "{}"}[get_named_type(type_).name]


def operation_of(coordinate: str) -> str:
    """One that asks for this root field."""
    root, _, name = coordinate.partition(".")
    field: GraphQLField = FIELDS[coordinate]
    needed = {key: arg for key, arg in field.args.items() if is_non_null_type(arg.type)}
    values = {key: "true" if key == "snapshot" else literal(arg.type) for key, arg in needed.items()}
    given = ", ".join(f"{key}: {value}" for key, value in values.items())
    selection = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    return f"{root.lower()} {{ {name}{f'({given})' if given else ''}{selection} }}"


async def refusal(query: str, role: Role | None, operations: Engine = OPERATIONS) -> tuple[str, dict[str, object]]:
    """The code and the extensions of what is refused before it is executed; else nothing."""
    async with opened(await memory_of(run(1, "/one"))) as database:
        answers = operations.execute(operations.parse(query), None, Context(database, "1", role, "somebody"))
        async with aclosing(answers):
            try:
                await anext(answers)
            except OperationError as error:
                return error.code, dict(error.errors[0]["extensions"])
    return "", {}


def test_every_mutation_declares_what_it_needs() -> None:
    """And it is more than READ. One that declares nothing would need ADMIN."""
    mutations = {f"Mutation.{name}" for name in SCHEMA.mutation_type.fields}  # type: ignore[union-attr]
    assert {name for name in REQUIRED_ROLES if name.startswith("Mutation.")} == mutations
    assert Role.READ not in REQUIRED_ROLES.values()
    assert required_role_of("Mutation.brandNew") is Role.ADMIN


def test_whatever_is_declared_exists() -> None:
    """And can't be asked for by way of an interface instead."""
    assert set(REQUIRED_ROLES) <= set(FIELDS)
    by_interface = {
        name for type_ in SCHEMA.type_map.values() if isinstance(type_, GraphQLInterfaceType) for name in type_.fields
    }
    assert by_interface == {"id"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("coordinate", ROOT_FIELDS)
async def test_a_field_is_answered_to_those_who_have_its_role(coordinate: str, way: str) -> None:
    """Each root field, with no role and with each: refused before anything is executed, or let through."""
    needed = REQUIRED_ROLES.get(coordinate, Role.READ)
    for role in (None, *Role):
        code, told = await refusal(operation_of(coordinate), role, WAYS[way])
        if role is not None and role.includes(needed):
            assert code != "FORBIDDEN"
        else:
            assert (code, told) == ("FORBIDDEN", {"code": "FORBIDDEN", "needs": needed.value})


async def test_a_refusal_changes_nothing() -> None:
    """Not even what the client might do alone."""
    query = 'mutation { createStudy(input: {name: "a"}) { created } deleteEverything(input: {}) { deletedIds } }'
    async with opened(await memory_of(run(1, "/one"))) as database:
        answers = OPERATIONS.execute(OPERATIONS.parse(query), None, Context(database, "1", Role.WRITE))
        with pytest.raises(OperationError, match=r"^Mutation.deleteEverything needs the role ADMIN, and .* has WRITE"):
            await anext(answers)
        assert (len(database.studies), len(database.runs)) == (0, 1)


@pytest.mark.parametrize(
    "query",
    [
        "mutation { ...f } fragment f on Mutation { ...g } fragment g on Mutation { repair(input: {}) { __typename } }",
        "mutation { ... on Mutation { harmless: repair(input: {}) { __typename } } }",
        "mutation { repair(input: {}) @skip(if: true) { __typename } }",
    ],
)
async def test_what_a_field_needs_is_found_wherever_it_stands(query: str) -> None:
    """In fragments, under other names, and where it would be skipped."""
    assert (await refusal(query, Role.WRITE))[0] == "FORBIDDEN"


async def test_only_the_operation_that_is_meant_counts() -> None:
    """A document may hold others that need more."""
    text = "query Look { runs { totalCount } } mutation Mend { repair(input: {}) { __typename } }"
    async with opened(await memory_of()) as database:
        context = Context(database, "1", Role.READ)
        assert await anext(OPERATIONS.execute(OPERATIONS.parse(text, "Look"), None, context))
        with pytest.raises(OperationError):
            await anext(OPERATIONS.execute(OPERATIONS.parse(text, "Mend"), None, context))


@pytest.mark.parametrize(
    ("role", "roles"),
    [(Role.READ, ["READ"]), (Role.WRITE, ["READ", "WRITE"]), (Role.ADMIN, ["READ", "WRITE", "ADMIN"])],
)
async def test_a_viewer_knows_its_roles(role: Role, roles: list[str]) -> None:
    """Each with those that it includes."""
    async with opened(await memory_of()) as database:
        answers = OPERATIONS.execute(OPERATIONS.parse("{ viewer { roles } }"), None, Context(database, "1", role))
        assert (await anext(answers)).data == {"viewer": {"roles": roles}}
