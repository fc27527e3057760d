"""The read model: the live copy of Merlin's database in memory, with indexes that Merlin does not keep.

Everything here is synchronous and does no I/O: `apply` changes the copy in one step of the event loop, so whoever reads
between two awaits sees one revision.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

from server.database.backends.codec import STATUS_FIELDS
from server.database.backends.notes import OWNERS, Note, NoteKey, NoteKind
from server.database.backends.revision_count import RevisionCount
from server.database.content_digest import ContentDigest
from server.database.default_order import position_of
from server.database.dialects import Dialects
from server.database.histories import Histories, Sighting
from server.database.json_text import EMPTY, JSONText, object_text
from server.database.large_values import LargeValues
from server.database.links import Links
from server.database.long_reads import LongReads
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
    optional,
)
from server.database.ordered import SortKey
from server.database.steps import RECORDS_PER_STEP, portions_of
from server.database.table import Table
from server.database.value_index import ValueIndex

LOG = logging.getLogger(__name__)

_WHOLESALE = 0.25
"""If more than this share of the records changes at once, rebuilding the indexes is cheaper than updating them."""


@dataclass(frozen=True, slots=True)
class Change:
    """The record of a key before and after; None if there was none."""

    key: Key
    before: Model | None
    after: Model | None
    annotated: bool = False
    """Whether the annotations or the history changed; then `before` and `after` may be equal."""
    observed: bool = False
    """Whether only what this server observes of it changed, and nothing that is stored."""


Listener: TypeAlias = Callable[[int, Sequence[Change]], None]
"""Called with the new revision and its changes, after they were applied."""


class ReadModel:
    """The tables of the four kinds, and the indexes and links between them."""

    def __init__(self, count: RevisionCount | None = None) -> None:
        self._revisions = RevisionCount() if count is None else count
        self.local_revision = 0
        """Counts the changes of this copy alone, for what is cached of it."""
        self.digest = ContentDigest(self._part)
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
        self.histories = Histories(self._history_changed)
        """The histories of runs."""
        self.ownerless: dict[NoteKey, None] = {}
        """The notes that came though there is no such entity; for whoever removes them."""
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
        self.large = LargeValues()
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
        self.study_runs.listeners.append(lambda study_id, _: self.studies.index.touch(study_id))
        self.worker_runs.listeners.append(lambda worker_id, _: self.logical_workers.index.touch(worker_id))
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
        self.on_reread: Callable[[Key], None] = _ignore
        """Called with the key of a record of which other values can be read than before, before it is stored."""
        self.long_reads = LongReads()
        self._listeners: dict[object, Listener] = {}

    @property
    def revision(self) -> int:
        """Counts up with every change of the copy, and with those that other servers have counted."""
        return self._revisions.own

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

    def _part(self, key: Key | NoteKey) -> Model | str | None:
        """What stands under a key now, for the digest."""
        if isinstance(key, Key):
            return self.get(key)
        history = self.histories.get(key.id)
        return None if history is None else history.text

    def keys(self) -> Iterator[Key]:
        """The keys of all records, including those that could not be read."""
        for kind, table in self.tables.items():
            yield from (Key(kind, id_) for id_ in table.records)
        yield from (key for key in self.problems if self.get(key) is None)

    def apply(self, entries: Iterable[Entry], notes: Iterable[Note] = ()) -> Sequence[Change]:
        """Applies the current content of some keys. Passes the changes to the listeners, and returns them."""
        changes: list[Change] = []
        problems_changed = False
        histories = self.histories.revision
        notes = list(notes)
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
            self.digest.note(change.key, change.before)
            if change.after is None and change.key.kind is EntityKind.RUN:
                self.histories.forget_seen(change.key.id)
            if not wholesale:
                self._count(change)
                self._reindex(change)
        if wholesale:
            for _ in self._rebuild():
                pass
        else:
            for links in self._links:
                links.settle()
        ownerless = [key for key, text in notes if text is not None and self.is_ownerless(key)]
        self.ownerless.update(dict.fromkeys(ownerless))
        if changes or problems_changed or histories != self.histories.revision or ownerless:
            self._notify(changes)
        return changes

    def take(self, entries: Iterable[Entry]) -> None:
        """Takes entries for `fill`, which has to follow, without keeping the entries themselves."""
        for entry in entries:
            key, record, problems, _ = entry
            if problems or self.problems:
                self._note_problems(entry)
            self.dialects.note(entry)
            self.tables[key.kind].store(key.id if record is None else record.id, record)

    def fill(self, entries: Sequence[Entry], notes: Sequence[Note] = ()) -> Iterator[None]:
        """Fills an empty copy faster than `apply`, step by step: it is of no use before the last step."""
        for some in portions_of(entries, RECORDS_PER_STEP):
            self.take(some)
            yield
        for some_notes in portions_of(notes, RECORDS_PER_STEP):
            self._apply_notes(some_notes)
            yield
        yield from self._rebuild()
        for kind, table in self.tables.items():
            self.digest.note_all(kind, list(table.records))
        self._notify(())

    def observe(self, keys: Iterable[Key]) -> None:
        """Tells the listeners that these entities look different now, though nothing that is stored of them changed."""
        records = ((key, self.get(key)) for key in keys)
        if changes := [Change(key, record, record, observed=True) for key, record in records if record is not None]:
            self._tell(changes)

    def see(self, sightings: Mapping[str, Sighting]) -> None:
        """Notes what this server has seen of runs, by their ids, where no change of their records tells of it."""
        if changes := list(
            self._annotated(id_ for id_, sighting in sightings.items() if self.histories.see(id_, sighting))
        ):
            self._notify(changes)

    def forget_searched(self) -> None:
        """To be called after the last of many small changes: frees the memory that made them fast."""
        for links in self._links:
            links.forget_searched()

    def assign_names(self, kind: EntityKind, owners: Mapping[str, str]) -> None:
        """Sets which record Merlin finds by each name that several have. `owners`: of all such names."""
        if self.tables[kind].assign_names(owners):
            self._notify(())

    def noted(self, kind: NoteKind) -> Collection[str]:
        """The ids of which the copy holds a note of a kind that is followed."""
        known: Mapping[NoteKind, Collection[str]] = {
            NoteKind.ANNOTATIONS: self.annotations,
            NoteKind.HISTORY: self.histories.by_run,
            NoteKind.DELETED: self.tombstones,
        }
        return known[kind]

    def is_ownerless(self, key: NoteKey) -> bool:
        """Whether a note should have an entity, and there is none."""
        return key.kind in OWNERS and not any(key.id in self.tables[kind].records for kind in OWNERS[key.kind])

    def _apply_notes(self, notes: Iterable[Note]) -> set[str]:
        """Applies notes and returns the ids whose annotations or histories changed."""
        annotated: set[str] = set()
        for (kind, id_), text in notes:
            if kind is NoteKind.DELETED:
                if text is None:
                    self.tombstones.discard(id_)
                else:
                    self.tombstones.add(id_)
            elif kind is NoteKind.HISTORY:
                self._apply_history(id_, text, annotated)
            elif (before := self.annotations.get(id_, EMPTY)) != (readable := object_text(text)):
                annotated.add(id_)
                self.large.annotations_changed(before, readable)
                self.digest.set_part((kind, id_), None if readable == EMPTY else readable)
                if readable == EMPTY:
                    del self.annotations[id_]
                else:
                    self.annotations[id_] = readable
        return annotated

    def _apply_history(self, id_: str, text: str | None, annotated: set[str]) -> None:
        """Adds the id, unless the history is ahead of the record or behind it: then the other one is yet to come."""
        run = self.runs.get(id_)
        is_news = self.histories.set_stored(id_ if run is None else run.id, text)  # the copy's string: no more memory
        history = self.histories.get(id_)
        if is_news and run is not None and (history is None or history.last in (None, run.run_status)):
            annotated.add(id_)

    def _annotated(self, ids: Iterable[str]) -> Iterator[Change]:
        """The changes for ids of existing entities whose annotations or histories changed."""
        for id_ in ids:
            for kind in OWNERS[NoteKind.ANNOTATIONS]:
                if (record := self.tables[kind].get(id_)) is not None:
                    yield Change(Key(kind, id_), record, record, annotated=True)

    def _history_changed(self, run_id: str, before: str | None) -> None:
        self.digest.note(NoteKey(NoteKind.HISTORY, run_id), before)
        self.runs.index.touch(run_id)

    def _position(self, record: Model) -> SortKey:
        return self.tables[KINDS[type(record)]].position(record)

    def _note_problems(self, entry: Entry) -> bool:
        if self.problems.get(entry.key, ()) == entry.problems:
            return False
        self.on_reread(entry.key)
        self.digest.set_part(entry.key, entry.problems or None)
        if entry.problems:
            self.problems[entry.key] = entry.problems
        else:
            del self.problems[entry.key]
        return True

    def _count(self, change: Change) -> None:
        self.large.changed(change.before, change.after)
        counter = self.queues.get(change.key.kind)
        if counter is None or _queues_of(change.before) == _queues_of(change.after):
            return
        for record, step in ((change.before, -1), (change.after, 1)):
            for queue in set(_queues_of(record)):
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

    def _rebuild(self) -> Iterator[None]:
        for kind, counter in self.queues.items():
            counter.clear()
            for records in portions_of(list(self.tables[kind].records.values()), RECORDS_PER_STEP):
                for queues, count in Counter(record.queues for record in records).items():
                    for queue in set(queues):
                        counter[queue] += count
                yield
        for kind, table in self.tables.items():
            self.large.forget(kind)
            for records in portions_of(list(table.records.values()), RECORDS_PER_STEP):
                self.large.add(kind, records)
                yield
            yield from table.rebuild()
            if kind in self._value_indexes:
                yield from self._value_indexes[kind].rebuild(table.order, table.records)
        for kind, belonging in self._belonging.items():
            for links in belonging:
                yield from links.rebuild(self.tables[kind].order)

    def _notify(self, changes: Sequence[Change]) -> None:
        self.local_revision += 1
        self._revisions.advance()
        for kind, table in self.tables.items():
            self.digest.set_part(("names", kind), table.assigned_names() or None)
        self._tell(changes)

    def _tell(self, changes: Sequence[Change]) -> None:
        for listener in tuple(self._listeners.values()):
            try:
                listener(self.revision, changes)
            except Exception:
                LOG.exception("A listener of the read model failed; the others and the feed go on.")


def _ignore(_key: Key) -> None:
    pass


def _queues_of(record: Model | None) -> tuple[str, ...]:
    return record.queues if isinstance(record, RunModel | LogicalWorkerModel) else ()
