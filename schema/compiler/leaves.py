"""Scalars and enums: which values are plain, and how they are serialized, as graphql-core does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GRAPHQL_MAX_INT,
    GRAPHQL_MIN_INT,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLScalarType,
    GraphQLString,
)

from schema.compiler.accessors import DEFINITION
from schema.compiler.classes import Classes, is_plain


@dataclass(frozen=True, slots=True)
class Leaf:
    """Python expressions over `{0}`, a value; they never hold anything that a client sent."""

    rejects: str
    """Whether the value may not be one of the type: then graphql-core runs the operation."""
    serialize: str = "{0}"
    constants: Mapping[str, Any] = field(default_factory=dict)
    """The constants that the expressions name."""
    is_checked: bool = False
    """Whether the serialized value has to be checked, too."""


ANSWERS = frozenset({str, int, float, bool, dict, list})
"""The classes that a serialized scalar may have."""

_TEXT = Leaf("{0}.__class__ is not str")
_BUILT_IN: Mapping[Callable[..., Any], Leaf] = {
    GraphQLString.coerce_output_value: _TEXT,
    GraphQLID.coerce_output_value: _TEXT,
    GraphQLInt.coerce_output_value: Leaf(
        f"{{0}}.__class__ is not int or not {GRAPHQL_MIN_INT} <= {{0}} <= {GRAPHQL_MAX_INT}"
    ),
    GraphQLFloat.coerce_output_value: Leaf(
        "{0}.__class__ is not float or not -infinity < {0} < infinity", constants={"infinity": math.inf}
    ),
    GraphQLBoolean.coerce_output_value: Leaf("{0} is not True and {0} is not False"),
}
"""By the function that serializes: a custom scalar may share it with a built-in one, and differ in its input."""


def leaf_of(type_: GraphQLLeafType) -> Leaf:
    known = _BUILT_IN.get(type_.coerce_output_value)
    if known is not None:
        return known
    return _enum(type_) if isinstance(type_, GraphQLEnumType) else _scalar(type_)


def _enum(type_: GraphQLEnumType) -> Leaf:
    """Looks members up by their names, since the hash of an enum is slow."""
    enum, names = type_.name, f"names_of_{type_.name}"
    members = type_.extensions[DEFINITION].wrapped_cls
    return Leaf(
        f"{{0}}.__class__ is not {enum}",
        f"{names}[{{0}}._name_]",
        {enum: members, names: {member._name_: type_.coerce_output_value(member) for member in members}},
    )


def _scalar(type_: GraphQLScalarType) -> Leaf:
    answer = f"answer_{type_.name}"
    return Leaf(
        "{0}.__class__ not in plain and not plain.admits({0})",
        f"{answer}({{0}})",
        {"plain": Classes(is_plain), answer: type_.coerce_output_value},
        is_checked=True,
    )
