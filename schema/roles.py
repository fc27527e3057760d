"""Who may do what: the one place that says which fields need more than READ."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

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

from schema.enums import describe


class Role(StrEnum):
    READ = "READ"
    WRITE = "WRITE"
    ADMIN = "ADMIN"

    @property
    def rank(self) -> int:
        return _RANKS[self]

    def includes(self, other: Role) -> bool:
        return self.rank >= other.rank

    @property
    def all(self) -> list[Role]:
        """Itself and those that it includes, the least first."""
        return [role for role in Role if self.includes(role)]


_RANKS = {role: rank for rank, role in enumerate(Role)}

describe(
    Role,
    "What a client may do. Each role includes those before it.",
    {
        Role.READ: "Every query and subscription.",
        Role.WRITE: "Also to create, change and delete single entities, and runs by a filter.",
        Role.ADMIN: "Also to delete all of a kind or everything, to repair and to collect garbage.",
    },
)

NEEDS: Mapping[str, Role] = MappingProxyType(
    {
        "Mutation.createStudy": Role.WRITE,
        "Mutation.createRun": Role.WRITE,
        "Mutation.createLogicalWorker": Role.WRITE,
        "Mutation.createPhysicalWorker": Role.WRITE,
        "Mutation.updateRun": Role.WRITE,
        "Mutation.updatePhysicalWorker": Role.WRITE,
        "Mutation.attachWorkers": Role.WRITE,
        "Mutation.detachWorkers": Role.WRITE,
        "Mutation.deleteStudy": Role.WRITE,
        "Mutation.deleteRun": Role.WRITE,
        "Mutation.deleteRuns": Role.WRITE,
        "Mutation.deleteLogicalWorker": Role.WRITE,
        "Mutation.deletePhysicalWorker": Role.WRITE,
        "Mutation.deleteAll": Role.ADMIN,
        "Mutation.deleteEverything": Role.ADMIN,
        "Mutation.collectGarbage": Role.ADMIN,
        "Mutation.repair": Role.ADMIN,
    }
)
"""By coordinate. A mutation that is not named here needs ADMIN, any other field READ."""


class Need(NamedTuple):
    role: Role
    field: str
    """A field that needs it, by its coordinate."""


def need_of(coordinate: str) -> Role:
    undeclared = Role.ADMIN if coordinate.startswith("Mutation.") else Role.READ
    return NEEDS.get(coordinate, undeclared)


def needs_of(schema: GraphQLSchema, document: DocumentNode) -> Mapping[str, Need]:
    """What each operation of a valid document needs, by its name; that of one without a name by the empty text."""
    return {name: _need(schema, separate) for name, separate in separate_operations(document).items()}


def name_of(definition: OperationDefinitionNode) -> str:
    """By which `needs_of` knows it."""
    return "" if definition.name is None else definition.name.value


def _need(schema: GraphQLSchema, document: DocumentNode) -> Need:
    found = _FieldNeeds(type_info := TypeInfo(schema))
    visit(document, TypeInfoVisitor(type_info, found))
    return found.most


class _FieldNeeds(Visitor):
    """Notes the field that needs most."""

    def __init__(self, type_info: TypeInfo) -> None:
        super().__init__()
        self._type_info = type_info
        self.most = Need(Role.READ, "Query")

    def enter_field(self, node: FieldNode, *_args: object) -> None:
        parent = self._type_info.get_parent_type()
        if parent is None:
            return
        coordinate = f"{parent.name}.{node.name.value}"
        role = Role.READ if node.name.value.startswith("__") else need_of(coordinate)
        if role.rank > self.most.role.rank:
            self.most = Need(role, coordinate)
