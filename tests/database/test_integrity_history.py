"""After any history of changes the integrity check says what a search through everything would say."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database import integrity_check, slices
from server.database.backends.memory import MemoryBackend
from server.database.backends.notes import NoteKey, NoteKind
from server.database.examination import Surveyed
from server.database.feed import Feed
from server.database.files.run_metadata import RunMetadata
from server.database.integrity_check import IntegrityCheck
from server.database.models import (
    KINDS,
    STORED_FIELDS,
    EntityKind,
    Entry,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    UnreadableValue,
    WorkerStatus,
    name_of,
    with_value,
)
from server.database.read_model import ReadModel
from tests.support.integrity_reference import Stored, is_lost, whole_search
from tests.support.problem_lists import compare
from tests.support.read_models import RUN, entry, gone, names, one, records


@dataclass(frozen=True)
class Edited:
    """One field of a record changes."""

    record: Model
    """A record of the same id, if there is one, gets a value of this one."""
    field: int


@dataclass(frozen=True)
class Saved:
    """A record is written as Merlin does it, with its name."""

    record: Model


@dataclass(frozen=True)
class Named:
    """Somebody sets an entry of a name map, or removes it."""

    kind: EntityKind
    name: str
    id: str | None


@dataclass(frozen=True)
class Owned:
    """The feed learns whom Merlin finds by a name that several have."""

    kind: EntityKind
    owners: Mapping[str, str]


@dataclass(frozen=True)
class Buried:
    """A tombstone comes or goes."""

    id: str
    is_there: bool


@dataclass(frozen=True)
class Specified:
    """A specification names the study of a run, or does not any more."""

    id: str
    name: str | None


@dataclass(frozen=True)
class Asked:
    """Somebody asks, and some changes come while the search is under way."""

    meanwhile: Sequence[Sequence[Entry]]


Step = Sequence[Entry] | Edited | Saved | Named | Owned | Buried | Specified | Asked

LINKS = {
    EntityKind.STUDY: ["runs"],
    EntityKind.RUN: ["study_id", "workers", "parent", "child"],
    EntityKind.LOGICAL_WORKER: ["runs", "physical_workers"],
    EntityKind.PHYSICAL_WORKER: ["logical_worker_id"],
}
kinds = st.sampled_from(EntityKind)
problems = {
    kind: st.sampled_from([(), (), (), *((UnreadableValue(name, "It is broken."),) for name in fields)])
    for kind, fields in LINKS.items()
}
any_record = st.one_of(*records.values())
mapped = st.sampled_from(sorted(MemoryBackend.name_maps))
entries = kinds.flatmap(
    lambda kind: st.one_of(
        st.builds(lambda record, found: entry(record, *found), records[kind], problems[kind]),
        st.builds(gone, st.just(kind), one[kind]),
    )
)
batches = st.lists(entries, min_size=1, max_size=4)
steps = st.one_of(
    batches,
    st.builds(Edited, any_record, st.integers(0, 20)),
    st.builds(Edited, any_record, st.integers(0, 20)),
    st.builds(Saved, any_record),
    mapped.flatmap(lambda kind: st.builds(Named, st.just(kind), names, st.none() | one[kind])),
    mapped.flatmap(lambda kind: st.builds(Owned, st.just(kind), st.dictionaries(names, one[kind], max_size=2))),
    st.builds(Buried, one[RUN], st.booleans()),
    st.builds(Specified, one[RUN], st.none() | st.sampled_from(["specified", "another"])),
    st.builds(Asked, st.lists(batches, max_size=4)),
)
histories = st.lists(steps, min_size=5, max_size=40)


class World:
    """A copy with its check, and all that it can read."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.model = ReadModel()
        self.feed = Feed(self.backend, self.model)
        self.specified: dict[str, str] = {}
        self.check = IntegrityCheck(self.backend, self.model, self.feed, cast("RunMetadata", self))
        self.tombstones: set[str] = set()
        self.backend.read_notes = self._read_notes  # type: ignore[method-assign]  # these notes alone are asked for

    async def study_names(self, workspaces: Mapping[str, str]) -> dict[str, str]:
        return {id_: name for id_, name in self.specified.items() if id_ in workspaces}

    async def _read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        assert all(key.kind is NoteKind.DELETED for key in keys)
        return {key: "" if key.id in self.tombstones else None for key in keys}

    async def do(self, step: Step) -> None:
        match step:
            case Edited(record, field):
                self._edit(record, field)
            case Saved(record):
                self.model.apply([entry(record)])
                if (own := name_of(record)) is not None:
                    self._name(KINDS[type(record)], own, record.id)
            case Named(kind, name, id_):
                self._name(kind, name, id_)
            case Owned(kind, owners):
                self.model.assign_names(kind, owners)
            case Buried(id_, is_there):
                self.model.tombstones.add(id_)  # nobody is told that one expires
                self.tombstones.symmetric_difference_update({id_} if (id_ in self.tombstones) != is_there else ())
            case Specified(id_, name):
                self.specified.pop(id_, None)
                if name is not None:
                    self.specified[id_] = name
            case Asked(meanwhile):
                await self._ask(meanwhile)
            case batch:
                self.model.apply(batch)

    def _edit(self, record: Model, field: int) -> None:
        key = Key(KINDS[type(record)], record.id)
        if (before := self.model.get(key)) is not None:
            fields = list(STORED_FIELDS[key.kind])
            name = fields[field % len(fields)]
            self.model.apply(
                [entry(with_value(before, name, getattr(record, name)), *self.model.problems.get(key, ()))]
            )

    def _name(self, kind: EntityKind, name: str, id_: str | None) -> None:
        self.backend._names[kind].pop(name, None)
        if id_ is not None:
            self.backend._names[kind][name] = id_
        self.feed.note_name_maps([kind])

    async def _ask(self, meanwhile: Sequence[Sequence[Entry]]) -> None:
        asking = asyncio.create_task(self.check.problems())
        for batch in meanwhile:
            for _ in range(3):
                await asyncio.sleep(0)
            self.model.apply(batch)
        await asking
        self.check._known = None  # of tombstones and specifications nobody is told
        compare(await self.check.problems(), whole_search(self.stored()))

    def stored(self) -> Stored:
        found: dict[Key, Any] = {
            Key(kind, id_): record for kind, table in self.model.tables.items() for id_, record in table.records.items()
        }
        owners = {kind: table.name_owners for kind, table in self.model.tables.items()}
        surveyed = Surveyed(
            frozenset(self.tombstones & self.model.tombstones),
            {id_: name for id_, name in self.specified.items() if is_lost(found, id_)},
        )
        return Stored(found, self.backend._names, self.model.problems, owners, surveyed)


async def lived(history: Sequence[Step]) -> None:
    world = World()
    for step in history:
        await world.do(step)
        if not isinstance(step, Asked):
            await world.do(Asked(()))


@settings(max_examples=200, deadline=None)
@given(history=histories)
def test_it_says_what_a_whole_search_says(history: list[Step]) -> None:
    """Whatever changes between two questions, or while one is answered: in the same order, also part by part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "STEP_SECONDS", 0.0)
        asyncio.run(lived(history))


def test_a_sibling_is_seen_when_the_child_goes() -> None:
    """What can be mended of a run's parent depends on a third run: the child that the parent names."""
    parent, child, other = (RunModel(f"r{number}", f"/{number}") for number in (1, 2, 3))
    parent, other = replace(parent, child=child.id), replace(other, parent=parent.id)
    asyncio.run(lived([[entry(parent), entry(child), entry(other)], [gone(RUN, child.id)], [entry(child)]]))


def test_a_worker_is_seen_when_its_process_stops() -> None:
    """Whether a logical worker without runs is in use depends on the status of what runs as it."""
    worker = LogicalWorkerModel("w1", "one", physical_workers=("p1",))
    process = PhysicalWorkerModel("p1", "p", worker.id, worker_status=WorkerStatus.RUNNING)
    stopped = replace(process, worker_status=WorkerStatus.STOPPED)
    asyncio.run(lived([[entry(worker), entry(process)], [entry(stopped)], [entry(process)]]))


@settings(max_examples=50, deadline=None)
@given(history=histories)
def test_it_begins_anew_after_very_many_changes(history: list[Step]) -> None:
    """Then it keeps nothing of what was, and says the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integrity_check, "_MOST_CHANGED", 1)
        asyncio.run(lived(history))
