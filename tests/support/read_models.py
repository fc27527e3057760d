"""What the tests of the read model share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from hypothesis import strategies as st

from server.database.backends.codec import CURRENT, LEGACY
from server.database.default_order import position_of
from server.database.links import Links
from server.database.listing import Listing
from server.database.models import (
    KINDS,
    EntityKind,
    Entry,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    UnreadableValue,
    WorkerStatus,
)
from server.database.read_model import Change, ReadModel

STUDY, RUN, LOGICAL, PHYSICAL = EntityKind
WHOLESALE, ONE_BY_ONE = 0.0, math.inf
"""Shares of the records from which on the indexes are built anew: always, and never."""


def entry(record: Model, *problems: UnreadableValue) -> Entry:
    return Entry(Key(KINDS[type(record)], record.id), record, problems)


def gone(kind: EntityKind, id_: str, *problems: UnreadableValue) -> Entry:
    return Entry(Key(kind, id_), None, problems)


def ids(records: Iterable[Model]) -> list[str]:
    return [record.id for record in records]


BROKEN = UnreadableValue("name", "It is broken.")


@dataclass
class World:
    """What stands under every key, and whom Merlin finds by the names that several have; the rest follows."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    owners: dict[EntityKind, Mapping[str, str]] = field(default_factory=lambda: {kind: {} for kind in EntityKind})

    def records(self, kind: EntityKind) -> list[Any]:
        """In the default order."""
        records = [it.record for it in self.entries.values() if it.key.kind is kind and it.record is not None]
        return sorted(records, key=default_order)

    def named(self, kind: EntityKind, name: str) -> str | None:
        having = sorted(it.id for it in self.records(kind) if own_name(it) == name)
        owner = self.owners[kind].get(name)
        return owner if owner in having else next(iter(having), None)


def default_order(record: Model) -> tuple[Any, ...]:
    if not isinstance(record, RunModel):
        return record.name, record.id
    launched = record.launched_at
    return launched is None, -launched.timestamp() if launched else 0, record.id


def own_name(record: Model) -> str | None:
    if isinstance(record, LogicalWorkerModel):
        return None
    return record.workspace if isinstance(record, RunModel) else record.name


LISTED: Mapping[str, tuple[EntityKind, EntityKind, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "study_runs": (STUDY, RUN, lambda study: study.runs, lambda it: [it.study_id]),
    "worker_runs": (LOGICAL, RUN, lambda worker: worker.runs, lambda it: it.workers),
    "instances": (LOGICAL, PHYSICAL, lambda worker: worker.physical_workers, lambda it: [it.logical_worker_id]),
    "children": (RUN, RUN, lambda parent: [parent.child], lambda child: [child.parent]),
}


def expected(world: World) -> Mapping[str, Any]:
    told = {it.is_legacy for it in world.entries.values() if it.key.kind in (RUN, PHYSICAL) and it.record is not None}
    state: dict[str, Any] = {
        "keys": sorted(world.entries),
        "problems": {key: it.problems for key, it in world.entries.items() if it.problems},
        "run statuses": Counter(it.run_status for it in world.records(RUN)),
        "runs of": {status: [it.id for it in world.records(RUN) if it.run_status is status] for status in RunStatus},
        "worker statuses": Counter(it.worker_status for it in world.records(PHYSICAL)),
        "workers of": {
            status: [it.id for it in world.records(PHYSICAL) if it.worker_status is status] for status in WorkerStatus
        },
        "queues": {
            kind: Counter(queue for it in world.records(kind) for queue in set(it.queues)) for kind in (RUN, LOGICAL)
        },
        "dialect": (False in told, LEGACY if True in told and False not in told else CURRENT),
    }
    for kind in EntityKind:
        records = world.records(kind)
        having = {name: sorted(it.id for it in records if own_name(it) == name) for name in NAMES}
        state[kind] = {
            "records": list(map(repr, records)),
            "named": {name: world.named(kind, name) for name in NAMES},
            "duplicates": {name: tuple(found) for name, found in having.items() if len(found) > 1},
        }
    for relation, (owner_kind, member_kind, listed, named) in LISTED.items():
        owners, members = world.records(owner_kind), world.records(member_kind)
        state[relation] = {
            "members": {a.id: [b.id for b in members if b.id in listed(a) or a.id in named(b)] for a in owners},
            "owners": {
                b.id: [id_ for id_ in dict.fromkeys(named(b)) if id_ in ids(owners)]
                + [a.id for a in owners if b.id in listed(a) and a.id not in named(b)]
                for b in members
            },
        }
    return state


def observed(model: ReadModel) -> Mapping[str, Any]:
    state: dict[str, Any] = {
        "keys": sorted(model.keys()),
        "problems": model.problems,
        "run statuses": model.run_statuses.counts(),
        "runs of": {status: [id_ for _, id_ in model.run_statuses.of(status)] for status in RunStatus},
        "worker statuses": model.worker_statuses.counts(),
        "workers of": {status: [id_ for _, id_ in model.worker_statuses.of(status)] for status in WorkerStatus},
        "queues": model.queues,
        "dialect": (model.dialects.has_current, model.dialects.of_new_records()),
    }
    for kind, table in model.tables.items():
        assert len(table) == len(list(table)) == len(table.order)
        assert table.order == list(map(position_of, table))
        assert all(table.get(it.id) is model.get(Key(kind, it.id)) is it for it in table)
        found = {name: table.named(name) for name in NAMES}
        state[kind] = {
            "records": list(map(repr, table)),
            "named": {name: None if it is None else it.id for name, it in found.items()},
            "duplicates": table.duplicate_names(),
        }
        assert {name for name in NAMES if table.is_duplicate(name)} == set(table.duplicate_names())
    for relation, (owner_kind, member_kind, _, _) in LISTED.items():
        links: Links[Any, Any] = getattr(model, relation)
        members = {id_: links.members_of(id_) for id_ in model.tables[owner_kind].records}
        for positions in members.values():
            assert list(positions) == [position_of(model.tables[member_kind].records[id_]) for _, id_ in positions]
        state[relation] = {
            "members": {owner_id: [id_ for _, id_ in positions] for owner_id, positions in members.items()},
            "owners": {id_: links.owners_of(id_) for id_ in model.tables[member_kind].records},
        }
    return state


NAMES = ["/a_20260101-000000", "/b_20260101-000000", "/a_20260102-000000", "/nowhen", "/a_20269999-000000"]
IDS = {STUDY: ["s1", "s2"], RUN: ["r1", "r2", "r3"], LOGICAL: ["w1", "w2", "w3"], PHYSICAL: ["p1", "p2"]}

names = st.sampled_from(NAMES)
one = {kind: st.sampled_from(IDS[kind]) for kind in EntityKind}
some = {kind: st.lists(one[kind], max_size=3).map(tuple) for kind in EntityKind}
extras = st.sampled_from(["{}", '{"a": 1}', '{"a": true}', '{"a": 1.0}', '{"a": [NaN]}'])
problems = st.sampled_from([(), (), (BROKEN,), (BROKEN, UnreadableValue(None, "All of it."))])
records: Mapping[EntityKind, st.SearchStrategy[Model]] = {
    STUDY: st.builds(StudyModel, id=one[STUDY], name=names, runs=some[RUN], additional_data=extras),
    RUN: st.builds(
        RunModel,
        id=one[RUN],
        workspace=names,
        study_id=st.none() | one[STUDY],
        workers=some[LOGICAL],
        parent=st.none() | one[RUN],
        child=st.none() | one[RUN],
        run_status=st.sampled_from([RunStatus.RUNNING, RunStatus.FAILED]),
        parameters=extras,
    ),
    LOGICAL: st.builds(
        LogicalWorkerModel, id=one[LOGICAL], name=names, runs=some[RUN], physical_workers=some[PHYSICAL]
    ),
    PHYSICAL: st.builds(
        PhysicalWorkerModel,
        id=one[PHYSICAL],
        name=names,
        logical_worker_id=st.none() | one[LOGICAL],
        worker_status=st.sampled_from([WorkerStatus.RUNNING, WorkerStatus.STOPPED]),
        args=extras,
    ),
}


def replace(model: ReadModel, entries: Iterable[Entry]) -> Sequence[Change]:
    """What a listing of the whole database does, in one step: what the entries do not name is removed."""
    listing = Listing(model)
    current = listing.current(entries)
    return model.apply([*current, *chain.from_iterable(listing.absent())])


def fill(model: ReadModel, entries: Iterable[Entry]) -> None:
    for _ in model.fill(list(entries)):
        pass
