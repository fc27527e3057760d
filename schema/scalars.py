"""The custom scalars of the contract.

Only here do different spellings exist: in the layers below, an id has the one spelling that Merlin stores, and a number
is the one that was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, NewType

import strawberry
from graphql import (
    BooleanValueNode,
    ConstListValueNode,
    ConstObjectFieldNode,
    ConstObjectValueNode,
    ConstValueNode,
    EnumValueNode,
    FloatValueNode,
    GraphQLID,
    GraphQLNamedType,
    GraphQLScalarType,
    IntValueNode,
    ListValueNode,
    NameNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
)
from strawberry.schema.types.base_scalars import wrap_parser
from strawberry.types.scalar import ScalarDefinition, scalar

from server.database.json_numbers import UnkeptNumber, decimal, integer
from server.database.managers.entity_manager import canonical_id

JSON = NewType("JSON", object)

_MINUTE = timedelta(minutes=1)


def id_of(text: str) -> str:
    """An id in the one spelling that Merlin stores; any other text as it is."""
    return canonical_id(text) or text


def _instant(text: str) -> datetime:
    """Parses an instant; without an offset it is UTC, since a client can't know the server's time zone."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def rfc3339(instant: datetime) -> str:
    """The same instant with an offset of whole minutes: zones had seconds in theirs until some 100 years ago."""
    offset = instant.utcoffset() or timedelta()
    change = round(offset / _MINUTE) * _MINUTE - offset
    if not change:
        return instant.isoformat()
    local = instant.replace(tzinfo=None, fold=0)
    try:
        local += change
    except OverflowError:  # in the first or last minute of the calendar
        change += _MINUTE if change < timedelta() else -_MINUTE
        local += change
    return local.replace(tzinfo=timezone(offset + change)).isoformat()


def _json_of(node: ValueNode) -> Any:
    """The value of a literal, in which no variable is left."""
    match node:
        case IntValueNode(value=text):
            return integer(text)
        case FloatValueNode(value=text):
            return decimal(text)
        case StringValueNode() | BooleanValueNode() | EnumValueNode():
            return node.value
        case NullValueNode():
            return None
        case ListValueNode():
            return list(map(_json_of, node.values))
        case ObjectValueNode():
            return {field.name.value: _json_of(field.value) for field in node.fields}
        case _:
            raise TypeError(f"{node!r} is not a JSON value.")


def _literal_of(value: Any) -> ConstValueNode:  # noqa: PLR0911 - one return a kind of value
    """The inverse of `_json_of`, for a variable inside another literal."""
    match value:
        case None:
            return NullValueNode()
        case bool():
            return BooleanValueNode(value=value)
        case str():
            return StringValueNode(value=value)
        case int():
            return IntValueNode(value=str(value))
        case float():
            return FloatValueNode(value=repr(value))
        case UnkeptNumber(text=text):
            return FloatValueNode(value=text)
        case list():
            return ConstListValueNode(values=tuple(map(_literal_of, value)))
        case dict():
            return ConstObjectValueNode(
                fields=tuple(
                    ConstObjectFieldNode(name=NameNode(value=name), value=_literal_of(item))
                    for name, item in value.items()
                )
            )
        case _:
            raise TypeError(f"{value!r} is not a JSON value.")


def _id_of_literal(node: ConstValueNode) -> str:
    read = GraphQLID.coerce_input_literal
    assert read is not None
    return id_of(read(node))


class _OwnScalar(GraphQLScalarType):
    """A scalar that may have the name of a standard one, which graphql-core reserves."""

    reserved_types: Mapping[str, GraphQLNamedType] = MappingProxyType({})


_ID = _OwnScalar(
    name=GraphQLID.name,
    description=GraphQLID.description,
    coerce_output_value=GraphQLID.coerce_output_value,
    coerce_input_value=lambda value: id_of(GraphQLID.coerce_input_value(value)),
    coerce_input_literal=_id_of_literal,
    value_to_literal=_literal_of,
)

_JSON = GraphQLScalarType(
    name="JSON",
    description="Any JSON value, passed through as stored.",
    specified_by_url="https://ecma-international.org/publications-and-standards/standards/ecma-404/",
    coerce_input_value=lambda value: value,
    coerce_input_literal=_json_of,
    value_to_literal=_literal_of,
)


def _definition_of(type_: GraphQLScalarType) -> ScalarDefinition:
    """The scalar for strawberry, which has no option of its own for literals with variables."""
    return ScalarDefinition(
        name=type_.name,
        description=type_.description,
        specified_by_url=type_.specified_by_url,
        serialize=type_.coerce_output_value,
        parse_value=type_.coerce_input_value,
        parse_literal=None,
        implementation=type_,
    )


SCALARS: Mapping[object, ScalarDefinition] = {
    strawberry.ID: _definition_of(_ID),
    JSON: _definition_of(_JSON),
    datetime: scalar(
        name="DateTime",
        description=(
            "An ISO-8601 instant with an offset. "
            "Merlin stores naive local times: they are read in the server's configured time zone."
        ),
        specified_by_url="https://scalars.graphql.org/andimarek/date-time",
        serialize=rfc3339,
        parse_value=wrap_parser(_instant, "DateTime"),
    ),
}
