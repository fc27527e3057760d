"""The roles, and the one table of fields that need more than READ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

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
        """The role and those that it includes, the lowest first."""
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

REQUIRED_ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "Mutation.createStudy": Role.WRITE,
        "Mutation.createRun": Role.WRITE,
        "Mutation.createLogicalWorker": Role.WRITE,
        "Mutation.createPhysicalWorker": Role.WRITE,
        "Mutation.annotate": Role.WRITE,
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
"""The required role by coordinate. A mutation that is not named here needs ADMIN, any other field READ."""


class RequiredRole(NamedTuple):
    role: Role
    field: str
    """The coordinate of a field that needs it."""


def required_role_of(coordinate: str) -> Role:
    is_mutation = coordinate.startswith("Mutation.") and not coordinate.startswith("Mutation.__")
    return REQUIRED_ROLES.get(coordinate, Role.ADMIN if is_mutation else Role.READ)


def required_role_of_all(coordinates: Iterable[str]) -> RequiredRole:
    """The highest role that a field needs, with the first such field in alphabetical order."""
    most = RequiredRole(Role.READ, "Query")
    for coordinate in sorted(coordinates):
        role = required_role_of(coordinate)
        if role.rank > most.role.rank:
            most = RequiredRole(role, coordinate)
    return most
