"""Transactions: a change of the database happens whole or not at all, whoever else writes.

A change is a function over a `Transaction`: it reads records, then says what is to stand and what is to go. The backend
compares every value that was read with what is there now, and writes only where all are the same; else the function
runs again. So nothing of a concurrent writer is lost, Merlin's own included, which know of no locks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import CURRENT, Dialect, Raw, decode, encode, encode_field, is_legacy
from server.database.backends.notes import NoteKey, NoteKind
from server.database.backends.write_set import NameKey, WriteSet
from server.database.errors import BackendError, ConflictError, InvalidValueError, UnknownOutcomeError
from server.database.feed import Feed
from server.database.files.metadata_file import FileState
from server.database.files.run_metadata import RunMetadata
from server.database.models import (
    KINDS,
    SAVED_BY_MERLIN,
    EntityKind,
    Entry,
    Key,
    Model,
    RunModel,
    RunStatus,
    with_value,
)
from server.database.read_model import ReadModel

LOG = logging.getLogger(__name__)

RETRY_TIMEOUT = 10.0
"""Seconds for which a change is tried again while others keep changing what it reads."""

ANNOTATIONS = "annotations"
"""The field of effects that no record has: it is a note."""
ANNOTATED = frozenset({EntityKind.RUN, EntityKind.STUDY})
"""The kinds whose entities can have annotations."""
_NEEDED_REFERENCES = {EntityKind.RUN: "study_id", EntityKind.PHYSICAL_WORKER: "logical_worker_id"}

Result = TypeVar("Result")
Record = TypeVar("Record", bound=Model)


class Action(StrEnum):
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Effect:
    """One entity that a change touched. `fields` are the model's, and only of an UPDATED one."""

    action: Action
    key: Key
    fields: tuple[str, ...] = ()


class Transaction:
    """What one change reads, and what it wants to stand instead. Reads see the transaction's own writes."""

    def __init__(self, backend: ResultsBackend, dialect: Dialect, *, status_beside: bool = False) -> None:
        self._backend = backend
        self._dialect = dialect
        self._status_beside = status_beside
        self._raw: dict[Key, Raw | None] = {}
        self._entries: dict[Key, Entry] = {}
        self._now: dict[Key, Model | None] = {}
        self._read_notes: dict[NoteKey, str | None] = {}
        self._notes: dict[NoteKey, str | None] = {}
        self._owners: dict[NameKey, str | None] = {}
        self._owners_now: dict[NameKey, str | None] = {}

    async def prefetch(self, keys: Iterable[Key]) -> None:
        """Reads many at once what `get` would read one by one."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._raw]
        if missing:
            for key, raw in (await self._backend.read_raw(missing)).items():
                self._raw[key] = raw
                self._entries[key] = Entry(key, None) if raw is None else decode(key.kind, key.id, raw)
                self._now.setdefault(key, self._entries[key].record)  # what was put before it was read, stands

    async def get(self, model: type[Record], id_: str) -> Record | None:
        key = Key(KINDS[model], id_)
        await self.prefetch([key])
        record = self._now[key]
        assert record is None or isinstance(record, model)
        return record

    async def prefetch_owners(self, kind: EntityKind, names: Iterable[str]) -> None:
        """Reads many at once what `owner_of` would read one by one."""
        missing = [name for name in dict.fromkeys(names) if NameKey(kind, name) not in self._owners]
        if missing:
            owners = await self._backend.name_owners(kind, missing)
            for name in missing:
                self._owners[NameKey(kind, name)] = self._owners_now[NameKey(kind, name)] = owners.get(name)

    async def owner_of(self, kind: EntityKind, name: str) -> str | None:
        """Whom Merlin finds by a name, whether or not there is such a record."""
        await self.prefetch_owners(kind, [name])
        return self._owners_now[NameKey(kind, name)]

    def is_readable(self, key: Key, field_name: str) -> bool:
        """Whether a field was read as it stands, so that writing it anew loses nothing."""
        entry = self._entries.get(key)
        return entry is None or all(problem.field != field_name for problem in entry.problems)

    async def note(self, key: NoteKey) -> str | None:
        """What stands under a key of this server's own."""
        if key not in self._notes:
            self._read_notes.update(await self._backend.read_notes([key]))
            self._notes[key] = self._read_notes[key]
        return self._notes[key]

    def set_note(self, key: NoteKey, text: str | None) -> None:
        """None removes it. One that was read before has to stand as it was read."""
        self._notes[key] = text

    def put(self, record: Model) -> None:
        """An existing record has to have been read before: only the fields that differ are written.

        Raises `InvalidValueError` for a run without a study and a physical worker without a logical one, unless that
        is how it stands: Merlin 2.0.0b4 fails to show the one and to delete the other, and whatever comes after them.
        """
        key = Key(KINDS[type(record)], record.id)
        needed = _NEEDED_REFERENCES.get(key.kind)
        if needed is not None and getattr(record, needed) is None:
            before = None if (entry := self._entries.get(key)) is None else entry.record
            if before is None or getattr(before, needed) is not None:
                raise InvalidValueError(f"Merlin needs it: a {key.kind.replace('_', ' ')} always names one.", needed)
        self._now[key] = record

    def check_storable(self, record: Model) -> None:
        """Raises `InvalidValueError` for a run status that the record's dialect has no word for."""
        if not isinstance(record, RunModel) or record.run_status in (RunStatus.RUNNING, RunStatus.COMPLETED):
            return
        raw = self._raw.get(Key(EntityKind.RUN, record.id))
        if raw is None or self._status_beside:
            only_tells_completion = not self._dialect.run_status
        else:
            only_tells_completion = is_legacy(EntityKind.RUN, raw) is True
        if only_tells_completion:
            raise InvalidValueError(
                "This run is stored as by a Merlin before 2.0.0b3, which tells only whether it is complete: "
                "use RUNNING or COMPLETED.",
                "run_status",
            )

    def append(self, record: Any, field_name: str, id_: str) -> None:
        """Adds an id to a record's list of them, unless it is there; a list that can't be read is left as it stands."""
        ids = getattr(record, field_name)
        if id_ not in ids and self.is_readable(Key(KINDS[type(record)], record.id), field_name):
            self.put(with_value(record, field_name, (*ids, id_)))

    def remove(self, record: Any, field_name: str, gone: Collection[str]) -> None:
        """Takes ids out of a record's list of them; a list that can't be read is left as it stands."""
        ids = getattr(record, field_name)
        left = tuple(id_ for id_ in ids if id_ not in gone)
        if left != ids and self.is_readable(Key(KINDS[type(record)], record.id), field_name):
            self.put(with_value(record, field_name, left))

    def delete(self, key: Key) -> None:
        """With its annotations."""
        self._now[key] = None
        if key.kind in ANNOTATED:
            self.set_note(NoteKey(NoteKind.ANNOTATIONS, key.id), None)

    def set_owner(self, kind: EntityKind, name: str, id_: str | None) -> None:
        """What the name map is to hold for a name that `owner_of` has read; None drops the entry."""
        self._owners_now[NameKey(kind, name)] = id_

    def has_deleted(self, key: Key) -> bool:
        return key in self._now and self._now[key] is None and self._entries[key].record is not None

    def effects(self) -> list[Effect]:
        effects = []
        for key, after in self._now.items():
            before = None if (entry := self._entries.get(key)) is None else entry.record
            if after is None:
                if before is not None:
                    effects.append(Effect(Action.DELETED, key))
            elif before is None:
                effects.append(Effect(Action.CREATED, key))
            elif fields := _changed(before, after) + self._annotated(key):
                effects.append(Effect(Action.UPDATED, key, fields))
        return effects

    def _annotated(self, key: Key) -> tuple[str, ...]:
        note = NoteKey(NoteKind.ANNOTATIONS, key.id)
        is_new = note in self._read_notes and self._read_notes[note] != self._notes[note]
        return (ANNOTATIONS,) if is_new else ()

    def noted(self) -> list[NoteKey]:
        """The notes that are to change, as far as is known."""
        read = self._read_notes
        return [key for key, text in self._notes.items() if key not in read or read[key] != text]

    def batch(self, id_: str) -> WriteSet:
        written: dict[Key, dict[str, str]] = {}
        deleted: set[Key] = set()
        for effect in self.effects():
            key, after = effect.key, self._now[effect.key]
            raw = self._raw.get(key)
            if after is None:
                deleted.add(key)
            elif raw is None or effect.action is Action.CREATED:
                written[key] = encode(after, self._dialect)
            else:
                fields = dict(
                    encode_field(after, name, raw, status_beside=self._status_beside)
                    for name in effect.fields
                    if name != ANNOTATIONS
                )
                if fields:
                    written[key] = fields
        names = {name: id_ for name, id_ in self._owners_now.items() if id_ != self._owners.get(name)}
        notes = {key: self._notes[key] for key in self.noted()}
        return WriteSet(id_, self._raw, self._owners, written, frozenset(deleted), names, self._read_notes, notes)


def _changed(before: Model, after: Model) -> tuple[str, ...]:
    return tuple(
        item.name for item in dataclasses.fields(before) if getattr(before, item.name) != getattr(after, item.name)
    )


Change = Callable[[Transaction], Awaitable[Result]]


@dataclass(slots=True)
class UnitOfWork:
    """What one mutation does, in one transaction or in many: its steps, and what they have changed so far.

    In a dry run all steps share one transaction that is never committed, so that later steps see the earlier ones.
    """

    runner: TransactionRunner
    dry_run: bool = False
    _done: dict[Key, Effect] = field(default_factory=dict)
    skipped: dict[Key, Effect] = field(default_factory=dict)
    """Partners that were to be changed, and are not there."""
    _noted: set[NoteKey] = field(default_factory=set)
    _dry: Transaction | None = None
    _files: dict[Key, tuple[Effect, FileState]] = field(default_factory=dict)
    """What became of Merlin's files of runs, and as of which effect."""

    async def step(self, change: Change[Result]) -> Result:
        """Runs a change, again where others interfere. Raises `ConflictError`, `BackendError`, and what it raises."""
        if not self.dry_run:
            result, effects, noted = await self.runner.run(change)
            for effect in effects:
                self._note(effect)
            self._noted.update(noted)
            return result
        if self._dry is None:
            self._dry = await self.runner.begin()
        return await change(self._dry)

    @property
    def effects(self) -> dict[Key, Effect]:
        """So far: of a dry run found anew each time."""
        return self._done if self._dry is None else {effect.key: effect for effect in self._dry.effects()}

    async def finish(self) -> None:
        """Returns when the read model has all of it, so that a client reads its own writes, and Merlin's files, too.

        Raises `UnknownOutcomeError` where it can't be read back.
        """
        if not self.effects or self.dry_run:
            return
        try:
            await self.runner.feed.refresh(self.effects.keys(), self._noted)
        except BackendError as error:
            raise UnknownOutcomeError(
                f"{error} Some of the change was made, or all of it, which is not known: look before trying again."
            ) from error
        await self._bring_files_in_step()

    def undone_by_merlin(self, id_: str) -> tuple[str, ...]:
        """Which changed fields of a run Merlin will set back, once the work is finished.

        It loads a run from the file in its workspace, and its next change of status saves all `SAVED_BY_MERLIN` of it.
        """
        effect, state = self._files.get(Key(EntityKind.RUN, id_), (None, FileState.GONE))
        if effect is None:
            return ()
        if effect.action is Action.CREATED:
            return SAVED_BY_MERLIN if state is FileState.OTHER_RUN else ()
        is_undone = state in (FileState.OUTSIDE, FileState.FAILED)
        return tuple(name for name in effect.fields if is_undone and name in SAVED_BY_MERLIN)

    async def _bring_files_in_step(self) -> None:
        changed = {
            key: effect
            for key, effect in self._done.items()
            if key.kind is EntityKind.RUN and _is_in_file(effect) and self._files.get(key, (None,))[0] is not effect
        }
        if changed:
            states = await self.runner.run_metadata.bring_in_step(
                {key.id: effect.action is Action.CREATED for key, effect in changed.items()}
            )
            self._files |= {key: (effect, states[key.id]) for key, effect in changed.items()}

    def deleted_ids(self) -> list[str]:
        return [effect.key.id for effect in self.effects.values() if effect.action is Action.DELETED]

    def has_created(self, key: Key) -> bool:
        effect = self.effects.get(key)
        return effect is not None and effect.action is Action.CREATED

    def has_deleted(self, key: Key) -> bool:
        if self._dry is not None:
            return self._dry.has_deleted(key)
        effect = self._done.get(key)
        return effect is not None and effect.action is Action.DELETED

    def skip(self, effects: Iterable[Effect]) -> None:
        self.skipped.update((effect.key, effect) for effect in effects)

    def _note(self, effect: Effect) -> None:
        before = self._done.get(effect.key)
        if before is None:
            self._done[effect.key] = effect
        elif effect.action is Action.DELETED and before.action is Action.CREATED:
            del self._done[effect.key]
        elif effect.action is Action.UPDATED:
            fields = tuple(dict.fromkeys((*before.fields, *effect.fields)))
            self._done[effect.key] = dataclasses.replace(
                before, fields=() if before.action is Action.CREATED else fields
            )
        else:
            self._done[effect.key] = effect


def _is_in_file(effect: Effect) -> bool:
    """Whether Merlin's file of the run should say it, too."""
    return effect.action is Action.CREATED or not set(SAVED_BY_MERLIN).isdisjoint(effect.fields)


class TransactionRunner:
    """Runs changes on one backend, one at a time: those of one process then never conflict with each other."""

    def __init__(
        self,
        backend: ResultsBackend,
        feed: Feed,
        read_model: ReadModel,
        dialect: Dialect | None,
        run_metadata: RunMetadata,
    ) -> None:
        self.feed = feed
        self.run_metadata = run_metadata
        self._backend = backend
        self._read_model = read_model
        self._dialect = dialect
        self._turn = asyncio.Lock()
        self.before_commit: Callable[[Collection[Effect]], None] = lambda _effects: None
        """Called with what is to change, before anybody can see it."""

    async def begin(self) -> Transaction:
        required = await self._backend.required_dialect()
        if required is not None:
            return Transaction(self._backend, required)
        if self._dialect is not None:
            return Transaction(self._backend, self._dialect, status_beside=self._dialect == CURRENT)
        if not self._read_model.dialects.has_current:
            await self.feed.refresh(())  # one that is told of, and not read yet, decides
        return Transaction(self._backend, self._read_model.dialects.of_new_records())

    async def run(self, change: Change[Result]) -> tuple[Result, list[Effect], list[NoteKey]]:
        """What the change returns, and the entities and notes that it touched."""
        async with self._turn:
            deadline = time.monotonic() + RETRY_TIMEOUT
            attempt = 0
            while True:
                transaction = await self.begin()
                result = await change(transaction)
                batch = transaction.batch(str(uuid.uuid4()))
                effects = transaction.effects()
                self.before_commit(effects)
                if batch.is_empty or await self._backend.commit(batch):
                    self.feed.unread |= {*batch.written, *batch.deleted}
                    return result, effects, self._told_of(batch)
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"Others kept changing the same records for {RETRY_TIMEOUT:.0f} seconds. "
                        "Nothing was changed: try again."
                    )
                attempt += 1
                await asyncio.sleep(random.random() * min(0.1, 0.001 * 2**attempt))  # noqa: S311 - spreads out writers

    def _told_of(self, batch: WriteSet) -> list[NoteKey]:
        """The notes that the copy may know otherwise: the annotations that a deletion removes are hardly ever there."""
        return [
            key
            for key, text in batch.notes.items()
            if text is not None or key.kind is not NoteKind.ANNOTATIONS or key.id in self._read_model.annotations
        ]
