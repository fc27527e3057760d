"""The whole search for contradictions, from scratch: it looks at all records, and keeps nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.database.examination import Surveyed
from server.database.integrity import RELATIONS, Problem, ProblemKind, Side, is_alive
from server.database.json_text import readable
from server.database.lost_studies import study_name
from server.database.models import (
    EntityKind,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
    UnreadableValue,
    name_of,
)

NameMaps = Mapping[EntityKind, Mapping[str, str]]


@dataclass(frozen=True)
class Stored:
    """All that contradictions are found in."""

    records: Mapping[Key, Model]
    name_maps: NameMaps
    problems: Mapping[Key, tuple[UnreadableValue, ...]] = field(default_factory=dict)
    owners: NameMaps = field(default_factory=dict)
    """By kind: whom Merlin finds by a name that several have."""
    surveyed: Surveyed = field(default_factory=Surveyed)

    def of(self, kind: EntityKind) -> dict[str, Any]:
        return {key.id: record for key, record in self.records.items() if key.kind is kind}

    def is_readable(self, key: Key, *fields: str) -> bool:
        return all(problem.field not in fields for problem in self.problems.get(key, ()))


def whole_search(stored: Stored) -> list[Problem]:
    """All problems, in the order in which they are told."""
    found: list[Problem] = []
    for owner, member in RELATIONS:
        found += _of_side(stored, owner, member)
        found += _of_side(stored, member, owner)
    found += _missing(stored)
    found += _duplicates(stored)
    found += _of_name_maps(stored)
    found += [
        Problem(ProblemKind.UNREADABLE_VALUE, key, value.message, value.field, fails_merlin=value.fails_merlin)
        for key, values in stored.problems.items()
        for value in values
    ]
    found += _resurrected(stored)
    found += _garbage(stored)
    return sorted(found, key=lambda problem: problem.place)


def _of_side(stored: Stored, side: Side, other_side: Side) -> Iterator[Problem]:
    others = stored.of(other_side.kind)
    for id_, record in stored.of(side.kind).items():
        key = Key(side.kind, id_)
        is_readable = stored.is_readable(key, side.field)
        for other_id, count in Counter(side.ids(record)).items():
            if count > 1:
                yield Problem(
                    ProblemKind.DUPLICATE_REFERENCE,
                    key,
                    f"The {_noun(side.kind)} {id_} names {other_id} {count} times in {side.field}.",
                    side.field,
                    other_id,
                    repairable=is_readable,
                )
            other = others.get(other_id)
            if other is None:
                name = study_name(record, stored.surveyed.spec_names) if side.field == "study_id" else None
                yield Problem(
                    ProblemKind.DANGLING_REFERENCE,
                    key,
                    f"The {_noun(side.kind)} {id_} names {other_id} in {side.field}, and there is no such "
                    f"{_noun(other_side.kind)}.",
                    side.field,
                    other_id,
                    name=name,
                    repairable=is_readable and _can_be_mended(stored, side, id_, name),
                )
            elif id_ not in other_side.ids(other):
                is_other_readable = stored.is_readable(Key(other_side.kind, other_id), other_side.field)
                has_other_child = side.field == "parent" and other.child in stored.of(EntityKind.RUN)
                yield Problem(
                    ProblemKind.ONE_SIDED_REFERENCE,
                    key,
                    f"The {_noun(side.kind)} {id_} names {other_id} in {side.field}, which does not name it in "
                    f"{other_side.field}.",
                    side.field,
                    other_id,
                    repairable=is_readable and is_other_readable and not has_other_child,
                    fails_merlin=other_side.field in ("study_id", "logical_worker_id") and not other_side.ids(other),
                )


def _can_be_mended(stored: Stored, side: Side, id_: str, name: str | None) -> bool:
    match side.field:
        case "study_id":
            return _is_listed_alone(stored, EntityKind.STUDY, "runs", side, id_) or name is not None
        case "logical_worker_id":
            return _is_listed_alone(stored, EntityKind.LOGICAL_WORKER, "physical_workers", side, id_)
        case _:
            return True


def _is_listed_alone(stored: Stored, owner_kind: EntityKind, listing: str, side: Side, id_: str) -> bool:
    """Whether an owner lists the member without being named by it."""
    member = stored.records.get(Key(side.kind, id_))
    named = () if member is None else side.ids(member)
    return any(
        id_ in getattr(owner, listing) and owner_id not in named for owner_id, owner in stored.of(owner_kind).items()
    )


def is_lost(records: Mapping[Key, Model], run_id: str) -> bool:
    """Whether there is such a run, and no study that it names or that lists it."""
    stored = Stored(records, {})
    run = records.get(Key(EntityKind.RUN, run_id))
    side = Side(EntityKind.RUN, "study_id")
    return (
        isinstance(run, RunModel)
        and run.study_id not in stored.of(EntityKind.STUDY)
        and not _is_listed_alone(stored, EntityKind.STUDY, "runs", side, run_id)
    )


def _missing(stored: Stored) -> Iterator[Problem]:
    for owner_kind, listing, side in (
        (EntityKind.STUDY, "runs", Side(EntityKind.RUN, "study_id")),
        (EntityKind.LOGICAL_WORKER, "physical_workers", Side(EntityKind.PHYSICAL_WORKER, "logical_worker_id")),
    ):
        for id_, record in stored.of(side.kind).items():
            key = Key(side.kind, id_)
            is_alone = not side.ids(record) and not _is_listed_alone(stored, owner_kind, listing, side, id_)
            if is_alone and stored.is_readable(key, side.field):
                name = study_name(record, stored.surveyed.spec_names) if isinstance(record, RunModel) else None
                yield Problem(
                    ProblemKind.MISSING_REFERENCE,
                    key,
                    f"The {_noun(side.kind)} {id_} has no {side.field}, without which Merlin fails at it.",
                    side.field,
                    name=name,
                    repairable=name is not None,
                )


def _duplicates(stored: Stored) -> Iterator[Problem]:
    for kind in EntityKind:
        named: dict[str, list[str]] = {}
        for id_, record in stored.of(kind).items():
            if (name := name_of(record)) is not None:
                named.setdefault(name, []).append(id_)
        for name, ids in named.items():
            noted = stored.owners.get(kind, {}).get(name)
            owner = noted if noted in ids else min(ids)
            for id_ in ids:
                if id_ != owner:
                    yield Problem(
                        ProblemKind.DUPLICATE_NAME,
                        Key(kind, id_),
                        f"The {_noun(kind)} {id_} has the name {name!r}, by which Merlin finds {owner}.",
                        "workspace" if kind is EntityKind.RUN else "name",
                        owner,
                    )


def _of_name_maps(stored: Stored) -> Iterator[Problem]:
    for kind, name_map in stored.name_maps.items():
        records = stored.of(kind)
        right = {name for name, id_ in name_map.items() if id_ in records and name_of(records[id_]) == name}
        for name, id_ in name_map.items():
            if name not in right:
                why = f"has the name {name_of(records[id_])!r}" if id_ in records else "does not exist"
                yield Problem(
                    ProblemKind.NAME_INDEX_MISMATCH,
                    Key(kind, id_),
                    f"The name map says that {name!r} is {_noun(kind)} {readable(id_)}, which {why}.",
                    name=name,
                    repairable=True,
                )
        for id_, record in records.items():
            if (has_name := name_of(record)) is not None and has_name not in right:
                yield Problem(
                    ProblemKind.NAME_INDEX_MISMATCH,
                    Key(kind, id_),
                    f"The {_noun(kind)} {id_} has the name {has_name!r}, but the name map has none of that name under "
                    "it: Merlin can't find it by name.",
                    name=has_name,
                    repairable=True,
                )


def _resurrected(stored: Stored) -> Iterator[Problem]:
    for id_ in stored.surveyed.resurrected:
        if (run := stored.of(EntityKind.RUN).get(id_)) is not None:
            state = "works on it still" if run.run_status.is_active else "has written it again"
            yield Problem(
                ProblemKind.RESURRECTED,
                Key(EntityKind.RUN, id_),
                f"The run {id_} was deleted, and Merlin {state}: delete it again once it is finished, or keep it.",
                repairable=True,
            )


def _garbage(stored: Stored) -> Iterator[Problem]:
    runs: Iterable[RunModel] = stored.of(EntityKind.RUN).values()
    instances: Iterable[PhysicalWorkerModel] = stored.of(EntityKind.PHYSICAL_WORKER).values()
    workers: Mapping[str, LogicalWorkerModel] = stored.of(EntityKind.LOGICAL_WORKER)
    studies: Mapping[str, StudyModel] = stored.of(EntityKind.STUDY)
    for id_, study in studies.items():
        has_runs = any(run.study_id == id_ or run.id in study.runs for run in runs)
        if not has_runs and stored.is_readable(Key(EntityKind.STUDY, id_), "runs"):
            yield Problem(ProblemKind.EMPTY_STUDY, Key(EntityKind.STUDY, id_), f"The study {study.name!r} has no runs.")
    for instance in instances:
        is_owned = instance.logical_worker_id in workers or any(
            instance.id in worker.physical_workers for worker in workers.values()
        )
        if not is_alive(instance) and not is_owned:
            yield Problem(
                ProblemKind.ORPHAN_WORKER,
                Key(EntityKind.PHYSICAL_WORKER, instance.id),
                f"The physical worker {instance.name!r} belongs to no logical worker, and does not run.",
            )
    for id_, worker in workers.items():
        is_used = any(id_ in run.workers or run.id in worker.runs for run in runs) or any(
            is_alive(instance) and (instance.logical_worker_id == id_ or instance.id in worker.physical_workers)
            for instance in instances
        )
        key = Key(EntityKind.LOGICAL_WORKER, id_)
        if not is_used and stored.is_readable(key, "runs", "physical_workers"):
            yield Problem(
                ProblemKind.ORPHAN_WORKER,
                key,
                f"No run uses the logical worker {worker.name!r}, and nothing runs as it.",
            )


def _noun(kind: EntityKind) -> str:
    return kind.replace("_", " ")
