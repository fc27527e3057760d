"""Contradictions in the database: their kinds, how severe each is, and the links that are stored twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from server.database.backends.codec import STATUS_FIELDS
from server.database.json_text import readable
from server.database.models import (
    EntityKind,
    Key,
    Model,
    PhysicalWorkerModel,
    WorkerStatus,
    optional,
)


class ProblemKind(StrEnum):
    DANGLING_REFERENCE = "DANGLING_REFERENCE"
    ONE_SIDED_REFERENCE = "ONE_SIDED_REFERENCE"
    DUPLICATE_REFERENCE = "DUPLICATE_REFERENCE"
    NAME_INDEX_MISMATCH = "NAME_INDEX_MISMATCH"
    DUPLICATE_NAME = "DUPLICATE_NAME"
    UNREADABLE_VALUE = "UNREADABLE_VALUE"
    MISSING_REFERENCE = "MISSING_REFERENCE"
    EMPTY_STUDY = "EMPTY_STUDY"
    ORPHAN_WORKER = "ORPHAN_WORKER"
    RESURRECTED = "RESURRECTED"
    OUTDATED_TABLE = "OUTDATED_TABLE"
    WRONG_TIME_ZONE = "WRONG_TIME_ZONE"
    """Found by `clock_check` while a server runs, and not by `integrity_check`."""


class Severity(StrEnum):
    """By one rule: docs/writing.md has it as a table, and tests/merlin/test_severity.py asks Merlin."""

    ERROR = "ERROR"
    """A command of Merlin fails because of it, or Merlin does not find a record."""
    WARNING = "WARNING"
    """Merlin's commands work; this server shows something else than Merlin, or than what is stored."""
    INFO = "INFO"
    """Merlin leaves it behind in normal work."""


SEVERITIES: Mapping[ProblemKind, Severity] = {
    ProblemKind.DANGLING_REFERENCE: Severity.ERROR,
    ProblemKind.ONE_SIDED_REFERENCE: Severity.ERROR,
    ProblemKind.DUPLICATE_REFERENCE: Severity.ERROR,
    ProblemKind.NAME_INDEX_MISMATCH: Severity.ERROR,
    ProblemKind.DUPLICATE_NAME: Severity.WARNING,
    ProblemKind.UNREADABLE_VALUE: Severity.WARNING,
    ProblemKind.MISSING_REFERENCE: Severity.ERROR,
    ProblemKind.EMPTY_STUDY: Severity.INFO,
    ProblemKind.ORPHAN_WORKER: Severity.INFO,
    ProblemKind.RESURRECTED: Severity.WARNING,
    ProblemKind.OUTDATED_TABLE: Severity.ERROR,
    ProblemKind.WRONG_TIME_ZONE: Severity.WARNING,
}
_RUN, _LOGICAL_WORKER, _PHYSICAL_WORKER = EntityKind.RUN, EntityKind.LOGICAL_WORKER, EntityKind.PHYSICAL_WORKER
FIELD_SEVERITIES: Mapping[tuple[ProblemKind, EntityKind, str], Severity] = {
    (ProblemKind.DANGLING_REFERENCE, _RUN, "parent"): Severity.WARNING,
    (ProblemKind.DANGLING_REFERENCE, _RUN, "child"): Severity.WARNING,
    (ProblemKind.DANGLING_REFERENCE, _LOGICAL_WORKER, "runs"): Severity.WARNING,
    (ProblemKind.DANGLING_REFERENCE, _PHYSICAL_WORKER, "logical_worker_id"): Severity.WARNING,
    (ProblemKind.ONE_SIDED_REFERENCE, _RUN, "parent"): Severity.WARNING,
    (ProblemKind.ONE_SIDED_REFERENCE, _RUN, "child"): Severity.WARNING,
    (ProblemKind.ONE_SIDED_REFERENCE, _LOGICAL_WORKER, "physical_workers"): Severity.INFO,  # two share a default worker
    (ProblemKind.DUPLICATE_REFERENCE, _LOGICAL_WORKER, "physical_workers"): Severity.INFO,  # one was launched again
    (ProblemKind.UNREADABLE_VALUE, EntityKind.STUDY, "name"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, EntityKind.STUDY, "runs"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _RUN, "workspace"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _RUN, "run_status"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _RUN, "workers"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _LOGICAL_WORKER, "name"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _LOGICAL_WORKER, "queues"): Severity.ERROR,  # its id is made of them
    (ProblemKind.UNREADABLE_VALUE, _LOGICAL_WORKER, "runs"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _LOGICAL_WORKER, "physical_workers"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _PHYSICAL_WORKER, "name"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _PHYSICAL_WORKER, "worker_status"): Severity.ERROR,
    (ProblemKind.UNREADABLE_VALUE, _PHYSICAL_WORKER, "restart_count"): Severity.ERROR,
}
"""Where the field makes a difference."""


_OF_LINKS = frozenset(
    {ProblemKind.DANGLING_REFERENCE, ProblemKind.ONE_SIDED_REFERENCE, ProblemKind.DUPLICATE_REFERENCE}
)
_RANKS: Mapping[ProblemKind, int] = {kind: rank for rank, kind in enumerate(ProblemKind)}

Place: TypeAlias = tuple[int, str, str, str, int, str, str, str]
"""Sections of problems, the entity, the other one, and what else tells two problems apart."""


@dataclass(frozen=True, slots=True)
class Problem:
    kind: ProblemKind
    key: Key
    """Its id is empty where a table as a whole is meant."""
    message: str
    field: str | None = None
    """Of the model."""
    other_id: str | None = None
    name: str | None = None
    """The entry of the name map that a NAME_INDEX_MISMATCH is about; the name of a run's study that is gone."""
    repairable: bool = False
    """By `repair`, without losing anything."""
    fails_merlin: bool = False
    """Whether Merlin fails at it, whichever field it is."""

    @property
    def severity(self) -> Severity:
        if self.fails_merlin:
            return Severity.ERROR
        return FIELD_SEVERITIES.get((self.kind, self.key.kind, self.field or ""), SEVERITIES[self.kind])

    @property
    def place(self) -> Place:
        """Where it stands among others, which is the order of repairs: no two have the same.

        What is wrong with links comes first, side by side: a link that one side has is made whole before one to what is
        gone is given up.
        """
        key, rank = self.key, _RANKS[self.kind]
        section = _SIDE_RANKS[key.kind, self.field or ""] if self.kind in _OF_LINKS else len(_SIDE_RANKS) + rank
        if self.kind is ProblemKind.OUTDATED_TABLE:
            section += _TABLE_RANKS[key.kind]
        return section, key.kind, key.id, self.other_id or "", rank, self.name or "", self.field or "", self.message

    @property
    def entity_id(self) -> str:
        """As it can be shown: something that is no record may stand under bytes that are no text."""
        return readable(self.key.id)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two places where a link is stored."""

    kind: EntityKind
    field: str

    def ids(self, record: Model) -> tuple[str, ...]:
        value: Any = getattr(record, self.field)
        return value if isinstance(value, tuple) else optional(value)

    @property
    def is_list(self) -> bool:
        return self.field not in ("study_id", "logical_worker_id", "parent", "child")


RELATIONS: tuple[tuple[Side, Side], ...] = (
    (Side(EntityKind.STUDY, "runs"), Side(EntityKind.RUN, "study_id")),
    (Side(EntityKind.LOGICAL_WORKER, "runs"), Side(EntityKind.RUN, "workers")),
    (Side(EntityKind.LOGICAL_WORKER, "physical_workers"), Side(EntityKind.PHYSICAL_WORKER, "logical_worker_id")),
    (Side(EntityKind.RUN, "child"), Side(EntityKind.RUN, "parent")),
)
"""Owner and member of every link that Merlin stores twice."""

SIDES: Mapping[tuple[EntityKind, str], tuple[Side, Side]] = {
    (side.kind, side.field): (side, other)
    for owner, member in RELATIONS
    for side, other in ((owner, member), (member, owner))
}
"""By kind and field: that side of its link, and the other one."""
_TABLE_RANKS = {kind: rank for rank, kind in enumerate(EntityKind)}
_SIDE_RANKS = {place: rank for rank, place in enumerate(SIDES)}


def outdated_tables(tables: Mapping[EntityKind, str]) -> list[Problem]:
    """Of what a backend says of its tables."""
    return [
        Problem(ProblemKind.OUTDATED_TABLE, Key(kind, ""), message, STATUS_FIELDS[kind][0])
        for kind, message in tables.items()
    ]


def is_alive(instance: PhysicalWorkerModel) -> bool:
    """One whose status can't be read may be."""
    return instance.worker_status is not WorkerStatus.STOPPED
