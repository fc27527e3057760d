"""The fields that an operation selects, by their coordinates, such as `Run.status`."""

from __future__ import annotations

from collections.abc import Mapping

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLSchema,
    OperationDefinitionNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    separate_operations,
    visit,
)


def coordinates_of(schema: GraphQLSchema, document: DocumentNode) -> Mapping[str, frozenset[str]]:
    """The coordinates of each operation of a valid document, by its name; an anonymous one has the empty name.

    Fields that @skip excludes are included. A field of an interface is listed under the interface.
    """
    found: dict[str, frozenset[str]] = {}
    for name, separate in separate_operations(document).items():
        collector = _Collector(type_info := TypeInfo(schema))
        visit(separate, TypeInfoVisitor(type_info, collector))
        found[name] = frozenset(collector.found)
    return found


def name_of(definition: OperationDefinitionNode) -> str:
    """The name of an operation in `coordinates_of`."""
    return "" if definition.name is None else definition.name.value


class _Collector(Visitor):
    def __init__(self, type_info: TypeInfo) -> None:
        super().__init__()
        self._type_info = type_info
        self.found: set[str] = set()

    def enter_field(self, node: FieldNode, *_args: object) -> None:
        parent = self._type_info.get_parent_type()
        if parent is not None:
            self.found.add(f"{parent.name}.{node.name.value}")
