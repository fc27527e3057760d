"""The arguments of a field, as strawberry passes them to its resolver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import strawberry
from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLField,
    ListValueNode,
    ObjectValueNode,
    Undefined,
    ValueNode,
    VariableNode,
    get_argument_values,
    is_non_null_type,
    is_required_argument,
)
from graphql.execution.values import VariableValues
from strawberry.types.arguments import StrawberryArgument, convert_arguments
from strawberry.types.base import StrawberryOptional

from schema.compiler.accessors import DEFINITION, NO_INFO
from schema.compiler.errors import UnexpectedError
from schema.core import scalars_of
from server.database.slices import give_way

NO_VARIABLES = VariableValues({}, {})

_AS_THEY_ARE = (str, int, float, bool, strawberry.ID)
"""The types whose values strawberry hands on without a conversion."""


class Arguments:
    """The arguments of one field of an operation: coerced by graphql-core, and converted by strawberry.

    They are shared by all calls of a resolver within an answer, and between answers where they hold no variables:
    resolvers read their arguments and never change them.
    """

    def __init__(self, schema: strawberry.Schema, field: GraphQLField, node: FieldNode) -> None:
        self._schema = schema
        self._node = node
        self._arguments: list[StrawberryArgument] = field.extensions[DEFINITION].arguments
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        moving = {name for name, value in given.items() if any(_variables_in([value]))}
        bare: set[str] = set()
        self._bare: list[_Bare] = []
        for argument in self._arguments:
            name = schema.config.name_converter.from_argument(argument)
            value = given.get(name)
            if isinstance(value, VariableNode) and _is_bare(argument, field.args[name]):
                bare.add(name)
                self._bare.append(_Bare(argument.python_name, value.name.value, field.args[name]))
        self._moving = _only(field, moving - bare)
        self._fixed = self._read(_only(field, field.args.keys() - moving), NO_VARIABLES, NO_INFO)

    @property
    def are_fixed(self) -> bool:
        """Whether they are the same whatever the variables."""
        return not (self._bare or self._moving.args)

    def read(self, variables: VariableValues, info: Any) -> Mapping[str, Any]:
        """The values by the names of the resolver's parameters. Raises the error of an invalid argument."""
        give_way()  # a list of thousands of values may stand in many fields
        found = dict(self._fixed)
        for argument in self._bare:
            argument.read(variables.coerced, found)
        if self._moving.args:
            found |= self._read(self._moving, variables, info)
        return found

    def _read(self, field: GraphQLField, variables: VariableValues, info: Any) -> Mapping[str, Any]:
        given = get_argument_values(field, self._node, variables)
        scalars, config = scalars_of(self._schema), self._schema.config
        return convert_arguments(given, self._arguments, scalars, config, info)


@dataclass(frozen=True, slots=True)
class _Bare:
    """An argument whose value is a single variable that needs no conversion."""

    parameter: str
    variable: str
    argument: GraphQLArgument

    def read(self, coerced: Mapping[str, Any], found: dict[str, Any]) -> None:
        """As graphql-core does it. Raises `UnexpectedError` for null where it must not be."""
        value = coerced.get(self.variable, Undefined)
        if value is Undefined and not is_required_argument(self.argument):
            value = self.argument.default_value
            if value is Undefined:
                return
        if value is Undefined or (value is None and is_non_null_type(self.argument.type)):
            raise UnexpectedError
        found[self.parameter] = value


def _is_bare(argument: StrawberryArgument, of_core: GraphQLArgument) -> bool:
    type_ = argument.type.of_type if type(argument.type) is StrawberryOptional else argument.type
    return type_ in _AS_THEY_ARE and of_core.default is None


def _only(field: GraphQLField, names: Iterable[str]) -> GraphQLField:
    """The field with some of its arguments."""
    return GraphQLField(field.type, {name: field.args[name] for name in field.args if name in set(names)})


def _variables_in(values: Iterable[ValueNode]) -> Iterable[VariableNode]:
    for value in values:
        match value:
            case VariableNode():
                yield value
            case ListValueNode():
                yield from _variables_in(value.values)
            case ObjectValueNode():
                yield from _variables_in(field.value for field in value.fields)
