"""Which GraphQL type a value is of, decided once for each Python class.

A type's `is_type_of` is taken to go by the class of a value, as `isinstance` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLSchema, Undefined
from graphql.pyutils import is_awaitable

from schema.compiler.accessors import DEFINITION, NO_INFO
from schema.compiler.errors import NotCompilableError, UnexpectedError


class Classes(set[type[Any]]):
    """The Python classes whose values pass a test."""

    def __init__(self, test: Callable[[Any], bool]) -> None:
        super().__init__()
        self._test = test

    def admits(self, value: object) -> bool:
        """Tests a value whose class is not in the set yet, and adds the class if it passes."""
        if not self._test(value):
            return False
        self.add(value.__class__)
        return True


class Kinds(dict[type[Any], str]):
    """For an interface: the name of the GraphQL type for each Python class of values."""

    def __init__(self, schema: GraphQLSchema, interface: GraphQLInterfaceType) -> None:
        super().__init__()
        if interface.extensions[DEFINITION].resolve_type is not None or interface.resolve_type is None:
            raise NotCompilableError(f"{interface.name} tells its types in a way of its own.")
        self._schema = schema
        self._interface = interface
        self._resolve_type: Callable[..., Any] = interface.resolve_type

    def learn(self, value: object) -> str:
        """Finds the type of a value, and remembers it. Raises `UnexpectedError` for a value without one."""
        name = self._resolve_type(value, _TypeInfo(self._schema), self._interface) if is_plain(value) else None
        type_ = self._schema.get_type(name) if isinstance(name, str) else None
        possible = self._schema.get_possible_types(self._interface)
        if type_ not in possible or not is_of(type_)(value):
            raise UnexpectedError
        self[value.__class__] = type_.name
        return type_.name


class _TypeInfo:
    """The part of the info that `resolve_type` uses."""

    __slots__ = ("field_name", "is_awaitable", "schema")

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        self.field_name = ""
        self.is_awaitable = is_awaitable


def is_plain(value: object) -> bool:
    """Whether graphql-core takes it for a value: no null, no error, nothing to wait for."""
    return not (value is None or value is Undefined or isinstance(value, Exception) or is_awaitable(value))


def is_of(type_: GraphQLObjectType) -> Callable[[Any], bool]:
    """The test for values of a type. Raises `NotCompilableError` for a type with a test of its own for each value."""
    is_type_of: Callable[..., Any] | None = type_.is_type_of
    if is_type_of is None:
        return is_plain
    if type_.extensions[DEFINITION].is_type_of is None:
        raise NotCompilableError(f"{type_.name} looks at each of its values.")
    return lambda value: is_plain(value) and is_type_of(value, NO_INFO) is True
