"""Finds contradictions in the database: pure functions of a snapshot of the copy and the stored name maps.

Each is a generator that yields None wherever the work may be interrupted, so that a large database is searched in short
steps of the event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from server.database.backends.codec import STATUS_FIELDS
from server.database.json_text import readable
from server.database.lost_studies import study_name
from server.database.models import (
    EntityKind,
    Key,
    Model,
    PhysicalWorkerModel,
    RunModel,
    WorkerStatus,
    name_of,
    optional,
)
from server.database.snapshots import FrozenTable, Snapshot

_LONG = 10
"""In a list of more ids one is found sooner by its hash."""

NameMaps = Mapping[EntityKind, Mapping[str, str]]
"""The stored name maps; a store without them has none."""


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
    """Found by `clock_check` while a server runs, and not by `find_problems`."""


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


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known beside the copy."""

    name_maps: NameMaps
    resurrected: Collection[str] = ()
    """Ids of runs that stand again although they were deleted here."""
    spec_names: Mapping[str, str] = field(default_factory=dict)
    """By the ids of runs whose study is gone: its name in their specification, where that may be read."""


def find_problems(copy: Snapshot, surveyed: Surveyed) -> Iterator[Problem | None]:
    for owner, member in RELATIONS:
        yield from _of_side(copy, owner, member, surveyed)
        yield from _of_side(copy, member, owner, surveyed)
    yield from _missing(copy, surveyed)
    yield from _of_names(copy, surveyed.name_maps)
    for key, values in copy.problems.items():
        yield None
        for value in values:
            yield Problem(
                ProblemKind.UNREADABLE_VALUE, key, value.message, value.field, fails_merlin=value.fails_merlin
            )
    yield from _resurrected(copy, surveyed.resurrected)
    yield from _garbage(copy)


def outdated_tables(tables: Mapping[EntityKind, str]) -> list[Problem]:
    """Of what a backend says of its tables."""
    return [
        Problem(ProblemKind.OUTDATED_TABLE, Key(kind, ""), message, STATUS_FIELDS[kind][0])
        for kind, message in tables.items()
    ]


def is_alive(instance: PhysicalWorkerModel) -> bool:
    """One whose status can't be read may be."""
    return instance.worker_status is not WorkerStatus.STOPPED


def _of_side(copy: Snapshot, side: Side, other_side: Side, surveyed: Surveyed) -> Iterator[Problem | None]:
    """What one side of a relation says, and the other does not."""
    records, others = copy.tables[side.kind].records, copy.tables[other_side.kind].records
    long_lists: dict[str, frozenset[str]] = {}
    for id_, record in records.items():
        yield None
        ids = side.ids(record)
        key = Key(side.kind, id_)
        is_readable = _is_readable(copy, key, side.field)
        counts = _counts(ids)
        for other_id in dict.fromkeys(ids):
            yield None
            if (count := counts.get(other_id, 1)) > 1:
                yield Problem(
                    ProblemKind.DUPLICATE_REFERENCE,
                    key,
                    f"{_noun(key)} names {other_id} {count} times in {side.field}.",
                    side.field,
                    other_id,
                    repairable=is_readable,
                )
            other = others.get(other_id)
            if other is None:
                of_study = record if isinstance(record, RunModel) and side.field == "study_id" else None
                name = None if of_study is None else study_name(of_study, surveyed.spec_names)
                yield Problem(
                    ProblemKind.DANGLING_REFERENCE,
                    key,
                    f"{_noun(key)} names {other_id} in {side.field}, and there is no such "
                    f"{other_side.kind.replace('_', ' ')}.",
                    side.field,
                    other_id,
                    name=(
                        name := study_name(record, surveyed.spec_names)
                        if isinstance(record, RunModel) and side.field == "study_id"
                        else None
                    ),
                    repairable=is_readable and _can_be_mended(copy, side, record, name),
                )
                continue
            ids_back: Collection[str] = other_side.ids(other)
            if len(ids_back) > _LONG:
                if other_id not in long_lists:
                    long_lists[other_id] = frozenset(ids_back)
                ids_back = long_lists[other_id]
            if id_ not in ids_back:
                yield Problem(
                    ProblemKind.ONE_SIDED_REFERENCE,
                    key,
                    f"{_noun(key)} names {other_id} in {side.field}, which does not name it in {other_side.field}.",
                    side.field,
                    other_id,
                    repairable=is_readable
                    and _is_readable(copy, Key(other_side.kind, other_id), other_side.field)
                    and _can_be_said_back(copy, side, other_side, other),
                    fails_merlin=other_side.field in ("study_id", "logical_worker_id") and not other_side.ids(other),
                )


def _counts(ids: tuple[str, ...]) -> Mapping[str, int]:
    """How often each id stands there, unless each does once: to count those of a large study takes long."""
    return {} if len(set(ids)) == len(ids) else Counter(ids)


def _missing(copy: Snapshot, surveyed: Surveyed) -> Iterator[Problem | None]:
    """Merlin fails at a record without these references. Where an owner names it, that is a ONE_SIDED_REFERENCE."""
    for links, kind, reference in (
        (copy.study_runs, EntityKind.RUN, "study_id"),
        (copy.instances, EntityKind.PHYSICAL_WORKER, "logical_worker_id"),
    ):
        for id_, record in copy.tables[kind].records.items():
            yield None
            if getattr(record, reference) is not None:
                continue
            key = Key(kind, id_)
            if not links.is_listed_alone(id_) and _is_readable(copy, key, reference):
                yield Problem(
                    ProblemKind.MISSING_REFERENCE,
                    key,
                    f"{_noun(key)} has no {reference}, without which Merlin fails at it.",
                    reference,
                    name=(name := study_name(record, surveyed.spec_names) if isinstance(record, RunModel) else None),
                    repairable=name is not None,
                )


def _can_be_mended(copy: Snapshot, side: Side, record: Model, name: str | None) -> bool:
    """Whether a reference to what is gone can go, or can lead somewhere: Merlin reads no null in two of them."""
    match side.field:
        case "study_id":
            return copy.study_runs.is_listed_alone(record.id) or name is not None
        case "logical_worker_id":
            return copy.instances.is_listed_alone(record.id)
        case _:
            return True


def _resurrected(copy: Snapshot, ids: Collection[str]) -> Iterator[Problem | None]:
    for id_ in ids:
        yield None
        if (run := copy.runs.records.get(id_)) is not None:
            state = "works on it still" if run.run_status.is_active else "has written it again"
            yield Problem(
                ProblemKind.RESURRECTED,
                Key(EntityKind.RUN, id_),
                f"The run {id_} was deleted, and Merlin {state}: delete it again once it is finished, or keep it.",
                repairable=True,
            )


def _is_readable(copy: Snapshot, key: Key, field: str) -> bool:
    return all(problem.field != field for problem in copy.problems.get(key, ()))


def _can_be_said_back(copy: Snapshot, side: Side, other_side: Side, other: Model) -> bool:
    """A parent that names another child has no place for this one; every other link can be made whole, or given up."""
    if side.field != "parent":
        return True
    taken = other_side.ids(other)
    return not any(id_ in copy.runs.records for id_ in taken)


def _of_names(copy: Snapshot, name_maps: NameMaps) -> Iterator[Problem | None]:
    for kind, table in copy.tables.items():
        yield from _duplicate_names(kind, table)
    for kind, name_map in name_maps.items():
        table = copy.tables[kind]
        for name, id_ in name_map.items():
            yield None
            record = table.records.get(id_)
            if record is None or name_of(record) != name:
                why = "does not exist" if record is None else f"has the name {name_of(record)!r}"
                yield Problem(
                    ProblemKind.NAME_INDEX_MISMATCH,
                    Key(kind, id_),
                    f"The name map says that {name!r} is {kind.replace('_', ' ')} {readable(id_)}, which {why}.",
                    name=name,
                    repairable=True,
                )
        for record in table:
            yield None
            has_name = name_of(record)
            if has_name is not None and not _is_held(table, name_map, has_name):
                key = Key(kind, record.id)
                yield Problem(
                    ProblemKind.NAME_INDEX_MISMATCH,
                    key,
                    f"{_noun(key)} has the name {has_name!r}, but the name map has none of that name under it: "
                    "Merlin can't find it by name.",
                    name=has_name,
                    repairable=True,
                )


def _duplicate_names(kind: EntityKind, table: FrozenTable[Any]) -> Iterator[Problem | None]:
    named: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for record in table:
        yield None
        name = name_of(record)
        if name is not None and (other := named.setdefault(name, record.id)) != record.id:
            several.setdefault(name, {other}).add(record.id)
    for name, ids in several.items():
        yield None
        noted = table.name_owners.get(name)
        owner = noted if noted in ids else min(ids)
        for id_ in sorted(ids - {owner}):
            key = Key(kind, id_)
            yield Problem(
                ProblemKind.DUPLICATE_NAME,
                key,
                f"{_noun(key)} has the name {name!r}, by which Merlin finds {owner}.",
                "workspace" if kind is EntityKind.RUN else "name",
                owner,
            )


def _is_held(table: FrozenTable[Any], name_map: Mapping[str, str], name: str) -> bool:
    """Whether Merlin finds a record of that name by it."""
    owner = table.records.get(name_map.get(name, ""))
    return owner is not None and name_of(owner) == name


def is_mismatch(problem: Problem, table: FrozenTable[Any], name_map: Mapping[str, str]) -> bool:
    """Whether a NAME_INDEX_MISMATCH stands in another reading of the map, too."""
    name = problem.name or ""
    record = table.records.get(problem.key.id)
    if record is not None and name_of(record) == name:
        return not _is_held(table, name_map, name)
    return name_map.get(name) == problem.key.id


def _garbage(copy: Snapshot) -> Iterator[Problem | None]:
    with_runs: set[str] = set()
    used: set[str] = set()
    for run in copy.runs.records.values():
        yield None
        with_runs.update(copy.study_runs.owners_of(run))
        used.update(copy.worker_runs.owners_of(run))
    for study in copy.studies:
        yield None
        if study.id not in with_runs and _is_readable(copy, Key(EntityKind.STUDY, study.id), "runs"):
            yield Problem(
                ProblemKind.EMPTY_STUDY, Key(EntityKind.STUDY, study.id), f"The study {study.name!r} has no runs."
            )
    for instance in copy.physical_workers:
        yield None
        owners = copy.instances.owners_of(instance)
        if is_alive(instance):
            used.update(owners)
        elif not owners:
            yield Problem(
                ProblemKind.ORPHAN_WORKER,
                Key(EntityKind.PHYSICAL_WORKER, instance.id),
                f"The physical worker {instance.name!r} belongs to no logical worker, and does not run.",
            )
    for worker in copy.logical_workers:
        yield None
        key = Key(EntityKind.LOGICAL_WORKER, worker.id)
        if worker.id not in used and _is_readable(copy, key, "runs") and _is_readable(copy, key, "physical_workers"):
            yield Problem(
                ProblemKind.ORPHAN_WORKER,
                key,
                f"No run uses the logical worker {worker.name!r}, and nothing runs as it.",
            )


def _noun(key: Key) -> str:
    return f"The {key.kind.replace('_', ' ')} {key.id}"
