"""The read model: the live copy of Merlin's database in memory, with indexes that Merlin does not keep.

Everything here is synchronous and does no I/O: `apply` and `replace` change the copy in one step of the event loop, so
whoever reads between two awaits sees one revision.
"""

from __future__ import annotations

import logging
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

from server.database.backends.codec import STATUS_FIELDS
from server.database.backends.notes import Note, NoteKey, NoteKind
from server.database.dialects import Dialects
from server.database.json_text import EMPTY, JSONText, object_text
from server.database.links import Links, discard, insert
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
    name_of,
    optional,
)
from server.database.ordered import SortKey
from server.database.value_index import ValueIndex

LOG = logging.getLogger(__name__)

Record = TypeVar("Record", bound=Model)

_WHOLESALE = 0.25
"""If more than this share of the records changes at once, rebuilding the indexes is cheaper than updating them."""

EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - launch times are naive
_NEVER_LAUNCHED = 1
"""Order value of a run without launch time: after every launched one, whose values are not positive."""


@dataclass(frozen=True, slots=True)
class Change:
    """The record of a key before and after; None if there was none."""

    key: Key
    before: Model | None
    after: Model | None
    annotated: bool = False
    """Whether the annotations changed; then `before` and `after` may be equal."""


Listener: TypeAlias = Callable[[int, Sequence[Change]], None]
"""Called with the new revision and its changes, after they were applied."""


def since_epoch(instant: datetime) -> timedelta:
    """The time since `EPOCH` in UTC. A timedelta, since converting a time near year 1 or 9999 to UTC would overflow."""
    return instant.replace(tzinfo=None) - EPOCH - (instant.utcoffset() or timedelta())


BY_LAUNCH = "latest launched first"
BY_NAME = "by name"


def order_of(kind: EntityKind) -> str:
    """The name of a kind's default order."""
    return BY_LAUNCH if kind is EntityKind.RUN else BY_NAME


def position_of(record: Model) -> SortKey:
    """The default order: runs by launch, newest first, those without launch time last; the rest by name."""
    if isinstance(record, RunModel):
        launched = record.launched_at
        return (_NEVER_LAUNCHED if launched is None else -int((launched - EPOCH).total_seconds()), record.id)
    return (record.name, record.id)


class Table(Generic[Record]):
    """The records of one kind: by id, by name and in the default order."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.order: list[SortKey] = []
        self.name_owners: Mapping[str, str] = {}
        """For names that several records have: the id in Merlin's own name map, as last read."""
        self.positions: dict[str, SortKey] = {}
        """The position of each record, by id. All orders share this tuple, to save memory."""
        self._ids: dict[str, str | list[str]] = {}
        """The id of each name; a sorted list of ids if several records have the name."""
        self._shared_names: set[str] = set()
        """Names that several records have, and some that they had: to search all names for them takes long."""
        self.capitals: dict[str, str] = {}
        """Ids with upper-case letters, by their lower-case form. Merlin never writes such ids, but others may."""
        self.views: list[dict[str, Any]] = []
        """Caches of objects made from single records, by id: an entry is dropped when its record changes."""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        """The records in the default order."""
        return (self.records[id_] for _, id_ in self.order)

    def get(self, id_: str) -> Record | None:
        return self.records.get(id_)

    def position(self, record: Record) -> SortKey:
        """The position of a record, whether or not it is in the table."""
        return self.positions[record.id] if self.records.get(record.id) is record else position_of(record)

    def launch_of(self, record: Record) -> int | None:
        """The launch time of a run in seconds since the year 1, local to the site; None if it has none.

        Taken from the position, so that no time is parsed again.
        """
        value = self.position(record)[0]
        return None if value == _NEVER_LAUNCHED or isinstance(value, str) else -value

    def named(self, name: str) -> Record | None:
        """The record with a name; of several, the one that Merlin finds."""
        ids = self._ids.get(name)
        match ids:
            case None:
                return None
            case str():
                return self.records[ids]
            case _:
                owner = self.name_owners.get(name)
                return self.records[owner if owner in ids else ids[0]]

    def ids_named(self, name: str) -> tuple[str, ...]:
        """The ids of all records with a name."""
        ids = self._ids.get(name, ())
        return (ids,) if isinstance(ids, str) else tuple(ids)

    def duplicate_names(self) -> Mapping[str, tuple[str, ...]]:
        return {name: tuple(ids) for name in self._shared_names if isinstance(ids := self._ids.get(name), list)}

    def is_duplicate(self, name: str) -> bool:
        return isinstance(self._ids.get(name), list)

    def assign_names(self, owners: Mapping[str, str]) -> bool:
        """Replaces `name_owners`. Returns whether any name now finds another record."""
        names = {*self.name_owners, *owners}
        before = {name: self.named(name) for name in names}
        self.name_owners = dict(owners)
        return any(self.named(name) is not record for name, record in before.items())

    def store(self, id_: str, record: Record | None) -> None:
        """Stores or removes a record, without updating the indexes; call `reindex` or `rebuild` afterwards."""
        for view in self.views:
            view.pop(id_, None)
        if record is None:
            self.records.pop(id_, None)
        else:
            self.records[id_] = record
        if (usual := id_.lower()) != id_:
            self.capitals.pop(usual, None)
            if record is not None:
                self.capitals[usual] = id_

    def reindex(self, id_: str, before: Record | None, after: Record | None) -> None:
        """Updates the indexes for one record, after `store`."""
        old = self.positions.get(id_)
        new = None if after is None else position_of(after)
        if old != new:
            if old is not None:
                discard(self.order, old)
                del self.positions[id_]
            if new is not None:
                insert(self.order, new)
                self.positions[id_] = new
        old_name = None if before is None else name_of(before)
        new_name = None if after is None else name_of(after)
        if old_name != new_name:
            if old_name is not None:
                self._forget_name(old_name, id_)
            if new_name is not None:
                self._add_name(new_name, id_)

    def rebuild(self) -> None:
        """Rebuilds the indexes in place, since others hold references to `order` and `positions`."""
        self.positions.clear()
        self.positions.update((id_, position_of(record)) for id_, record in self.records.items())
        self.order[:] = sorted(self.positions.values())
        self._ids = {}
        for id_, record in self.records.items():
            name = name_of(record)
            if name is not None:
                self._add_name(name, id_)

    def _add_name(self, name: str, id_: str) -> None:
        ids = self._ids.get(name)
        match ids:
            case None:
                self._ids[name] = id_
            case str():
                self._ids[name] = sorted((ids, id_))
                self._shared_names.add(name)
            case _:
                insort(ids, id_)

    def _forget_name(self, name: str, id_: str) -> None:
        ids = self._ids[name]
        if isinstance(ids, str):
            del self._ids[name]
            return
        ids.remove(id_)
        if len(ids) == 1:
            self._ids[name] = ids[0]
            self._shared_names.discard(name)


class ReadModel:
    """The tables of the four kinds, and the indexes and links between them."""

    def __init__(self) -> None:
        self.revision = 0
        """Counts up with every change of the copy."""
        self.studies = Table[StudyModel]()
        self.runs = Table[RunModel]()
        self.logical_workers = Table[LogicalWorkerModel]()
        self.physical_workers = Table[PhysicalWorkerModel]()
        self.tables: Mapping[EntityKind, Table[Any]] = {
            EntityKind.STUDY: self.studies,
            EntityKind.RUN: self.runs,
            EntityKind.LOGICAL_WORKER: self.logical_workers,
            EntityKind.PHYSICAL_WORKER: self.physical_workers,
        }
        self.problems: dict[Key, tuple[UnreadableValue, ...]] = {}
        """The values that could not be read, by record."""
        self.annotations: dict[str, JSONText] = {}
        """The annotations of entities, by id, unless they are empty."""
        self.tombstones: set[str] = set()
        """Ids of deleted runs with a tombstone in the database; it may have expired, since no notice tells of that."""
        self.dialects = Dialects({kind: self.tables[kind].records for kind in STATUS_FIELDS})
        self.run_statuses = ValueIndex[RunStatus, RunModel](lambda run: run.run_status)
        self.worker_statuses = ValueIndex[WorkerStatus, PhysicalWorkerModel](lambda worker: worker.worker_status)
        self._value_indexes: Mapping[EntityKind, ValueIndex[Any, Any]] = {
            EntityKind.RUN: self.run_statuses,
            EntityKind.PHYSICAL_WORKER: self.worker_statuses,
        }
        self.queues: Mapping[EntityKind, Counter[str]] = {
            EntityKind.RUN: Counter(),
            EntityKind.LOGICAL_WORKER: Counter(),
        }
        """How many runs, and how many logical workers, name each queue."""
        self.study_runs = Links(
            self.studies.records,
            self.runs.records,
            listed=lambda study: study.runs,
            named=lambda run: optional(run.study_id),
            position=self._position,
        )
        self.worker_runs = Links(
            self.logical_workers.records,
            self.runs.records,
            listed=lambda worker: worker.runs,
            named=attrgetter("workers"),
            position=self._position,
        )
        self.instances = Links(
            self.logical_workers.records,
            self.physical_workers.records,
            listed=lambda worker: worker.physical_workers,
            named=lambda instance: optional(instance.logical_worker_id),
            position=self._position,
        )
        self.children = Links(
            self.runs.records,
            self.runs.records,
            listed=lambda parent: optional(parent.child),
            named=lambda child: optional(child.parent),
            position=self._position,
        )
        self._links: Sequence[Links[Any, Any]] = (self.study_runs, self.worker_runs, self.instances, self.children)
        self._owning: Mapping[EntityKind, tuple[Links[Any, Any], ...]] = {
            EntityKind.STUDY: (self.study_runs,),
            EntityKind.RUN: (self.children,),
            EntityKind.LOGICAL_WORKER: (self.worker_runs, self.instances),
            EntityKind.PHYSICAL_WORKER: (),
        }
        self._belonging: Mapping[EntityKind, tuple[Links[Any, Any], ...]] = {
            EntityKind.STUDY: (),
            EntityKind.RUN: (self.study_runs, self.worker_runs, self.children),
            EntityKind.LOGICAL_WORKER: (),
            EntityKind.PHYSICAL_WORKER: (self.instances,),
        }
        self._listeners: dict[object, Listener] = {}

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Registers a listener for all later changes; the returned function removes it."""
        subscription = object()
        self._listeners[subscription] = listener

        def stop() -> None:
            self._listeners.pop(subscription, None)

        return stop

    def get(self, key: Key) -> Model | None:
        record: Model | None = self.tables[key.kind].get(key.id)
        return record

    def keys(self) -> Iterator[Key]:
        """The keys of all records, including those that could not be read."""
        for kind, table in self.tables.items():
            yield from (Key(kind, id_) for id_ in table.records)
        yield from (key for key in self.problems if self.get(key) is None)

    def apply(self, entries: Iterable[Entry], notes: Iterable[Note] = ()) -> Sequence[Change]:
        """Applies the current content of some keys. Passes the changes to the listeners, and returns them."""
        changes: list[Change] = []
        problems_changed = False
        annotated = self._apply_notes(notes)
        for entry in {entry.key: entry for entry in entries}.values():
            problems_changed |= self._note_problems(entry)
            self.dialects.note(entry)
            before = self.get(entry.key)
            if before != entry.record:
                changes.append(Change(entry.key, before, entry.record, entry.key.id in annotated))
        annotated.difference_update(change.key.id for change in changes)
        changes += self._annotated(annotated)
        wholesale = len(changes) > _WHOLESALE * sum(map(len, self.tables.values()))
        for change in changes:
            self.tables[change.key.kind].store(change.key.id, change.after)
            if not wholesale:
                self._count(change)
                self._reindex(change)
        if wholesale:
            self._rebuild()
        else:
            for links in self._links:
                links.settle()
        if changes or problems_changed:
            self._notify(changes)
        return changes

    def replace(self, entries: Iterable[Entry], notes: Iterable[Note] = ()) -> Sequence[Change]:
        """Replaces the whole content: what the entries and the notes do not name is removed."""
        new = {entry.key: entry for entry in entries}
        for key in self.keys():
            new.setdefault(key, Entry(key, None))
        by_key = {note.key: note for note in notes}
        for id_ in self.annotations:
            note_key = NoteKey(NoteKind.ANNOTATIONS, id_)
            by_key.setdefault(note_key, Note(note_key, None))
        self.tombstones.clear()
        return self.apply(new.values(), by_key.values())

    def assign_names(self, kind: EntityKind, owners: Mapping[str, str]) -> None:
        """Sets which record Merlin finds by each name that several have. `owners`: of all such names."""
        if self.tables[kind].assign_names(owners):
            self._notify(())

    def _apply_notes(self, notes: Iterable[Note]) -> set[str]:
        """Applies notes and returns the ids whose annotations changed."""
        annotated: set[str] = set()
        for (kind, id_), text in notes:
            if kind is NoteKind.DELETED:
                if text is None:
                    self.tombstones.discard(id_)
                else:
                    self.tombstones.add(id_)
            elif self.annotations.get(id_, EMPTY) != (readable := object_text(text)):
                annotated.add(id_)
                if readable == EMPTY:
                    del self.annotations[id_]
                else:
                    self.annotations[id_] = readable
        return annotated

    def _annotated(self, ids: Iterable[str]) -> Iterator[Change]:
        """The changes for ids of existing entities whose annotations changed."""
        for id_ in ids:
            for kind in (EntityKind.RUN, EntityKind.STUDY):
                if (record := self.tables[kind].get(id_)) is not None:
                    yield Change(Key(kind, id_), record, record, annotated=True)

    def _position(self, record: Model) -> SortKey:
        return self.tables[KINDS[type(record)]].position(record)

    def _note_problems(self, entry: Entry) -> bool:
        if self.problems.get(entry.key, ()) == entry.problems:
            return False
        if entry.problems:
            self.problems[entry.key] = entry.problems
        else:
            del self.problems[entry.key]
        return True

    def _count(self, change: Change) -> None:
        counter = self.queues.get(change.key.kind)
        if counter is None:
            return
        for record, step in ((change.before, -1), (change.after, 1)):
            if isinstance(record, RunModel | LogicalWorkerModel):
                for queue in set(record.queues):
                    counter[queue] += step
                    if not counter[queue]:
                        del counter[queue]

    def _reindex(self, change: Change) -> None:
        kind, id_ = change.key.kind, change.key.id
        self.tables[kind].reindex(id_, change.before, change.after)
        if kind in self._value_indexes:
            self._update_value_index(kind, change)
        for links in self._belonging[kind]:
            links.member_changed(id_, change.before, change.after)
        for links in self._owning[kind]:
            links.owner_changed(id_, change.before, change.after)

    def _update_value_index(self, kind: EntityKind, change: Change) -> None:
        old = None if change.before is None else position_of(change.before)
        new = None if change.after is None else self._position(change.after)
        self._value_indexes[kind].changed(change.before, change.after, old, new)

    def _rebuild(self) -> None:
        for kind, counter in self.queues.items():
            counter.clear()
            for queues, count in Counter(record.queues for record in self.tables[kind].records.values()).items():
                for queue in set(queues):
                    counter[queue] += count
        for kind, table in self.tables.items():
            table.rebuild()
            if kind in self._value_indexes:
                self._value_indexes[kind].rebuild(table.order, table.records)
        for links in self._links:
            links.rebuild()

    def _notify(self, changes: Sequence[Change]) -> None:
        self.revision += 1
        for listener in tuple(self._listeners.values()):
            try:
                listener(self.revision, changes)
            except Exception:
                LOG.exception("A listener of the read model failed; the others and the feed go on.")
