"""The plan of an operation: its fields as a tree, each with its accessor and its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import strawberry
from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLUnionType,
    OperationDefinitionNode,
    OperationType,
    get_named_type,
    is_interface_type,
    is_leaf_type,
    is_object_type,
)

from schema.compiler.accessors import Accessor, Event, accessor_of, check_schema
from schema.compiler.arguments import Arguments
from schema.compiler.errors import NotCompilableError
from schema.compiler.selections import Selections

MAX_FIELDS = 2_000
"""Fields in one function; nested fragments could expand a short document to millions."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the result, with what is selected below it."""

    key: str
    """The key in the response."""
    name: str
    parent: GraphQLObjectType
    type: GraphQLOutputType
    accessor: Accessor | None
    """None for `__typename`."""
    arguments: Arguments | None = None
    selections: Mapping[GraphQLObjectType, Sequence[Field]] = field(default_factory=dict)
    """The selected fields for each object type that the value may have; empty for a leaf."""

    @property
    def coordinate(self) -> str:
        return f"{self.parent.name}.{self.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    operation: OperationDefinitionNode
    root: GraphQLObjectType
    fields: Sequence[Field]

    @property
    def name(self) -> str:
        return self.operation.operation.value if self.operation.name is None else self.operation.name.value


def plan_of(schema: strawberry.Schema, operation: OperationDefinitionNode, selections: Selections) -> Plan:
    """Plans an operation. Raises `NotCompilableError`, and `GraphQLError` for one that can't be executed.

    That of a mutation is executed already: the root is what its field returned.
    """
    check_schema(schema)
    planner = _Planner(schema, selections)
    root = selections.schema.get_root_type(operation.operation)
    if root is None:
        raise NotCompilableError(f"The schema has no root for a {operation.operation.value}.")
    fields = selections.collect_fields(root, [operation.selection_set])
    if operation.operation is OperationType.MUTATION and len(fields) > 1:
        raise NotCompilableError("Several mutations are not compiled.")
    return Plan(operation, root, planner.fields(root, fields))


class _Planner:
    def __init__(self, schema: strawberry.Schema, selections: Selections) -> None:
        self._strawberry = schema
        self._schema: GraphQLSchema = selections.schema
        self._selections = selections
        self._count = 0

    def fields(self, parent: GraphQLObjectType, grouped: Mapping[str, Sequence[FieldNode]]) -> Sequence[Field]:
        return tuple(self._field(key, parent, nodes) for key, nodes in grouped.items())

    def _field(self, key: str, parent: GraphQLObjectType, nodes: Sequence[FieldNode]) -> Field:
        self._count += 1
        if self._count > MAX_FIELDS:
            raise NotCompilableError(f"It selects more than {MAX_FIELDS} fields.")
        name = nodes[0].name.value
        found = self._schema.get_field(parent, name)
        if found is None or name in ("__schema", "__type"):
            raise NotCompilableError(f"{name} is not compiled.")
        if name == "__typename":
            return Field(key, name, parent, found.type, None)
        is_done = parent is self._schema.mutation_type
        return Field(
            key,
            name,
            parent,
            found.type,
            Event() if is_done else accessor_of(f"{parent.name}.{name}", found),
            None if is_done else self._arguments(found, nodes[0]),
            self._of(get_named_type(found.type), nodes),
        )

    def _arguments(self, found: GraphQLField, node: FieldNode) -> Arguments | None:
        return Arguments(self._strawberry, found, node) if found.args else None

    def _of(self, type_: GraphQLNamedType, nodes: Sequence[FieldNode]) -> Mapping[GraphQLObjectType, Sequence[Field]]:
        sets = [node.selection_set for node in nodes]
        return {one: self.fields(one, self._selections.collect_fields(one, sets)) for one in self._objects(type_)}

    def _objects(self, type_: GraphQLNamedType) -> Iterator[GraphQLObjectType]:
        if is_object_type(type_):
            yield type_
        elif is_interface_type(type_):
            yield from self._schema.get_possible_types(type_)
        elif not is_leaf_type(type_):
            kind = "a union" if isinstance(type_, GraphQLUnionType) else "of an unknown kind"
            raise NotCompilableError(f"{type_.name} is {kind}.")
