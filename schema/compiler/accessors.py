"""How the value of a field is read: as strawberry reads it, where that is plain and synchronous."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import strawberry
from graphql import GraphQLField
from strawberry.types.field import StrawberryField

from schema.compiler.errors import NotCompilableError
from schema.core import has_exception_handlers

DEFINITION = "strawberry-definition"
"""Where strawberry keeps its own definition of what it made for graphql-core."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """The value is an attribute of the parent object."""

    name: str


@dataclass(frozen=True, slots=True)
class Resolver:
    """The value is the result of a function."""

    function: Callable[..., Any]
    is_method: bool
    """Whether the parent object is its first argument."""
    parents: tuple[str, ...]
    """The names of the parameters that receive the parent object."""
    info: str | None
    """The name of the parameter that receives the info."""


@dataclass(frozen=True, slots=True)
class Event:
    """The field of a subscription or a mutation: its value is the event itself, or what the mutation returned."""


Accessor: TypeAlias = Attribute | Resolver | Event


class PlainInfo:
    """The info of compiled resolvers. A resolver that uses more of it fails, and graphql-core runs the operation."""

    __slots__ = ("context",)

    def __init__(self, context: Any) -> None:
        self.context = context


NO_INFO = object()
"""The info for calls that must not use it."""


def check_schema(schema: strawberry.Schema) -> None:
    """Raises `NotCompilableError` where strawberry itself would do more than read fields."""
    if schema.config.default_resolver is not getattr:
        raise NotCompilableError("The schema has a default resolver of its own.")
    if has_exception_handlers(schema):
        raise NotCompilableError("The schema has handlers of exceptions.")


def accessor_of(coordinate: str, field: GraphQLField) -> Accessor:
    """The accessor of a field; `coordinate` names it, as `Run.id`. Raises `NotCompilableError`."""
    definition = field.extensions.get(DEFINITION)
    if type(definition) is not StrawberryField:  # another class may read in another way
        raise NotCompilableError(f"{coordinate} is no plain field.")
    if definition.extensions or definition.permission_classes:
        raise NotCompilableError(f"{coordinate} has extensions or permissions.")
    if definition.is_subscription:
        return Event()
    resolver = definition.base_resolver
    if resolver is None:
        return Attribute(definition.python_name)
    function = resolver.wrapped_func
    if not (inspect.isfunction(function) and _is_plain(function) and _is_plain(inspect.unwrap(function))):
        raise NotCompilableError(f"{coordinate} is no plain synchronous function.")
    parents = [parameter.name for parameter in (resolver.parent_parameter, resolver.root_parameter) if parameter]
    return Resolver(
        function,
        resolver.self_parameter is not None,
        tuple(dict.fromkeys(parents)),
        None if resolver.info_parameter is None else resolver.info_parameter.name,
    )


def _is_plain(function: Callable[..., Any]) -> bool:
    return not (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    )
