"""The examination of one subject for contradictions: of a record, of one id of one of its lists, or of a name.

It looks into the live copy, and takes as long however large that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.database.integrity import SIDES, Problem, ProblemKind, Side, is_alive
from server.database.json_text import readable
from server.database.links import Links
from server.database.lost_studies import study_name
from server.database.models import EntityKind, Key, LogicalWorkerModel, Model, PhysicalWorkerModel, RunModel, name_of
from server.database.read_model import ReadModel
from server.database.slices import give_way
from server.database.steps import portions_of

_LONG = 10
"""In a list of more ids one is found sooner by its hash, if it is not the only one that is looked for."""
_FEW = 3
"""So many ids are looked for in a long list as it is."""
_COUNTED_TOGETHER = 5_000

SIDES_OF: Mapping[EntityKind, tuple[tuple[Side, Side], ...]] = {
    kind: tuple(sides for (of_kind, _), sides in SIDES.items() if of_kind is kind) for kind in EntityKind
}
"""The sides of links that a kind has, each with the other one."""
_REFERENCES = {kind: [sides for sides in of_kind if not sides[0].is_list] for kind, of_kind in SIDES_OF.items()}
LISTS_OF = {kind: [sides for sides in of_kind if sides[0].is_list] for kind, of_kind in SIDES_OF.items()}


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known beside the copy and the name maps."""

    resurrected: frozenset[str] = frozenset()
    """Ids of runs that stand again although they were deleted here."""
    spec_names: Mapping[str, str] = field(default_factory=dict)
    """By the ids of runs whose study is gone: its name in their specification, where that may be read."""


class LongLists:
    """How often an id stands in a list: a long one in which many are looked for is counted once, and kept."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str], tuple[tuple[str, ...], Counter[str]]] = {}
        self._asked: Counter[tuple[str, str]] = Counter()

    def count(self, side: Side, record: Model, id_: str) -> int:
        ids = side.ids(record)
        if len(ids) <= _LONG:
            return ids.count(id_)
        place = record.id, side.field
        known = self._counted.get(place)
        if known is not None and known[0] is ids:
            return known[1][id_]
        self._asked[place] += 1
        if self._asked[place] <= _FEW:
            return ids.count(id_)
        counts: Counter[str] = Counter()
        for some in portions_of(ids, _COUNTED_TOGETHER):
            counts.update(some)
            give_way()
        self._counted[place] = ids, counts
        return counts[id_]


class Examination:
    """What is examined with the same knowledge beside the copy."""

    def __init__(self, copy: ReadModel, surveyed: Surveyed) -> None:
        self._copy = copy
        self._lists = LongLists()
        self.surveyed = surveyed

    def of_record(self, key: Key) -> tuple[Problem, ...]:
        """All but what its lists say."""
        record = self._copy.get(key)
        return (*self._of_values(key), *(() if record is None else self._of_fields(key, record)))

    def of_item(self, key: Key, side: Side, other_side: Side, other_id: str) -> tuple[Problem, ...]:
        """What one id of a list says, and nothing else does."""
        record = self._copy.get(key)
        return () if record is None else tuple(self._of_link(key, record, side, other_side, other_id))

    def of_name(self, kind: EntityKind, name: str, entry: str | None, *, has_map: bool) -> tuple[Problem, ...]:
        """`entry`: the id that the name map has for the name."""
        found = [*self._of_duplicates(kind, name)]
        if has_map:
            found += self._of_entry(kind, name, entry)
        return tuple(found)

    def _of_values(self, key: Key) -> Iterator[Problem]:
        for value in self._copy.problems.get(key, ()):
            yield Problem(
                ProblemKind.UNREADABLE_VALUE, key, value.message, value.field, fails_merlin=value.fails_merlin
            )

    def _of_fields(self, key: Key, record: Model) -> Iterator[Problem]:
        for side, other_side in _REFERENCES[key.kind]:
            for other_id in side.ids(record):
                yield from self._of_link(key, record, side, other_side, other_id)
        match record:
            case RunModel():
                yield from self._of_run(key, record)
            case PhysicalWorkerModel():
                yield from self._of_instance(key, record)
            case LogicalWorkerModel():
                yield from self._of_worker(key, record)
            case _:
                if not self._copy.study_runs.members_of(record.id) and self._is_readable(key, "runs"):
                    yield Problem(ProblemKind.EMPTY_STUDY, key, f"The study {record.name!r} has no runs.")

    def _of_run(self, key: Key, run: RunModel) -> Iterator[Problem]:
        if run.study_id is None:
            yield from self._missing(key, run, "study_id", self._copy.study_runs)
        if run.id in self.surveyed.resurrected:
            state = "works on it still" if run.run_status.is_active else "has written it again"
            yield Problem(
                ProblemKind.RESURRECTED,
                key,
                f"The run {run.id} was deleted, and Merlin {state}: delete it again once it is finished, or keep it.",
                repairable=True,
            )

    def _of_instance(self, key: Key, instance: PhysicalWorkerModel) -> Iterator[Problem]:
        if instance.logical_worker_id is None:
            yield from self._missing(key, instance, "logical_worker_id", self._copy.instances)
        if not is_alive(instance) and not self._copy.instances.owners_of(instance.id):
            yield Problem(
                ProblemKind.ORPHAN_WORKER,
                key,
                f"The physical worker {instance.name!r} belongs to no logical worker, and does not run.",
            )

    def _of_worker(self, key: Key, worker: LogicalWorkerModel) -> Iterator[Problem]:
        if not self._is_used(worker.id) and self._is_readable(key, "runs", "physical_workers"):
            yield Problem(
                ProblemKind.ORPHAN_WORKER,
                key,
                f"No run uses the logical worker {worker.name!r}, and nothing runs as it.",
            )

    def _of_link(self, key: Key, record: Model, side: Side, other_side: Side, other_id: str) -> Iterator[Problem]:
        """What one side of a relation says, and the other does not."""
        count = self._lists.count(side, record, other_id)
        if not count:
            return
        other = self._copy.tables[other_side.kind].records.get(other_id)
        if count > 1:
            yield Problem(
                ProblemKind.DUPLICATE_REFERENCE,
                key,
                f"{_noun(key)} names {other_id} {count} times in {side.field}.",
                side.field,
                other_id,
                repairable=self._is_readable(key, side.field),
            )
        if other is None:
            of_study = record if isinstance(record, RunModel) and side.field == "study_id" else None
            name = None if of_study is None else study_name(of_study, self.surveyed.spec_names)
            yield Problem(
                ProblemKind.DANGLING_REFERENCE,
                key,
                f"{_noun(key)} names {other_id} in {side.field}, and there is no such "
                f"{other_side.kind.replace('_', ' ')}.",
                side.field,
                other_id,
                name=name,
                repairable=self._is_readable(key, side.field) and self._can_be_mended(side, record, name),
            )
        elif not self._lists.count(other_side, other, key.id):
            yield Problem(
                ProblemKind.ONE_SIDED_REFERENCE,
                key,
                f"{_noun(key)} names {other_id} in {side.field}, which does not name it in {other_side.field}.",
                side.field,
                other_id,
                repairable=self._is_readable(key, side.field)
                and self._is_readable(Key(other_side.kind, other_id), other_side.field)
                and self._can_be_said_back(side, other_side, other),
                fails_merlin=other_side.field in ("study_id", "logical_worker_id") and not other_side.ids(other),
            )

    def _missing(self, key: Key, record: Model, reference: str, links: Links[Any, Any]) -> Iterator[Problem]:
        """Merlin fails at a record without it. Where an owner names the record, that is a ONE_SIDED_REFERENCE."""
        if not links.one_sided_of(record.id) and self._is_readable(key, reference):
            name = study_name(record, self.surveyed.spec_names) if isinstance(record, RunModel) else None
            yield Problem(
                ProblemKind.MISSING_REFERENCE,
                key,
                f"{_noun(key)} has no {reference}, without which Merlin fails at it.",
                reference,
                name=name,
                repairable=name is not None,
            )

    def _can_be_mended(self, side: Side, record: Model, name: str | None) -> bool:
        """Whether a reference to what is gone can go, or can lead somewhere: Merlin reads no null in two of them."""
        match side.field:
            case "study_id":
                return bool(self._copy.study_runs.one_sided_of(record.id)) or name is not None
            case "logical_worker_id":
                return bool(self._copy.instances.one_sided_of(record.id))
            case _:
                return True

    def _can_be_said_back(self, side: Side, other_side: Side, other: Model) -> bool:
        """A parent that names another child has no place for this one; any other link can be made whole, or go."""
        return side.field != "parent" or not any(id_ in self._copy.runs.records for id_ in other_side.ids(other))

    def _is_used(self, worker_id: str) -> bool:
        """Whether a run names a logical worker, or is listed by it, or something may run as it."""
        instances = self._copy.physical_workers.records
        return bool(self._copy.worker_runs.members_of(worker_id)) or any(
            is_alive(instances[id_]) for _, id_ in self._copy.instances.members_of(worker_id)
        )

    def _is_readable(self, key: Key, *fields: str) -> bool:
        return all(problem.field not in fields for problem in self._copy.problems.get(key, ()))

    def _of_duplicates(self, kind: EntityKind, name: str) -> Iterator[Problem]:
        table = self._copy.tables[kind]
        if not table.is_duplicate(name):
            return
        owner = table.named(name)
        assert owner is not None
        for id_ in table.ids_named(name):
            if id_ != owner.id:
                key = Key(kind, id_)
                yield Problem(
                    ProblemKind.DUPLICATE_NAME,
                    key,
                    f"{_noun(key)} has the name {name!r}, by which Merlin finds {owner.id}.",
                    "workspace" if kind is EntityKind.RUN else "name",
                    owner.id,
                )

    def _of_entry(self, kind: EntityKind, name: str, entry: str | None) -> Iterator[Problem]:
        table = self._copy.tables[kind]
        record = None if entry is None else table.get(entry)
        if record is not None and name_of(record) == name:
            return
        if entry is not None:
            why = "does not exist" if record is None else f"has the name {name_of(record)!r}"
            yield Problem(
                ProblemKind.NAME_INDEX_MISMATCH,
                Key(kind, entry),
                f"The name map says that {name!r} is {kind.replace('_', ' ')} {readable(entry)}, which {why}.",
                name=name,
                repairable=True,
            )
        for id_ in table.ids_named(name):
            key = Key(kind, id_)
            yield Problem(
                ProblemKind.NAME_INDEX_MISMATCH,
                key,
                f"{_noun(key)} has the name {name!r}, but the name map has none of that name under it: "
                "Merlin can't find it by name.",
                name=name,
                repairable=True,
            )


def _noun(key: Key) -> str:
    return f"The {key.kind.replace('_', ' ')} {key.id}"
