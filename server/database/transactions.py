"""Transactions: a change of the database happens whole or not at all, whoever else writes.

A change is a function of a `Transaction`: it reads records, then puts and deletes some. At the commit, the backend
compares every value that was read with the current one, and writes only if all are equal; else the function runs again
(optimistic concurrency). So no concurrent write is lost, not even one of Merlin, which uses no locks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import filterfalse
from typing import Any, TypeVar

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import CURRENT, Dialect, Raw, decode, encode, encode_field, is_legacy
from server.database.backends.notes import FOLLOWED, OWNERS, NoteKey, NoteKind
from server.database.backends.write_set import NameKey, WriteSet
from server.database.effects import Action, Effect, changed_fields, described
from server.database.errors import (
    AlreadyBegunError,
    ConflictError,
    InvalidValueError,
)
from server.database.feed import Feed
from server.database.files.run_metadata import RunMetadata
from server.database.idempotency import Claim
from server.database.models import (
    KINDS,
    EntityKind,
    Entry,
    Key,
    Model,
    RunModel,
    RunStatus,
    with_value,
)
from server.database.read_model import ReadModel
from server.database.steps import Steps
from server.database.tasks import together
from server.database.turns import Turns, raise_if_cancelled

LOG = logging.getLogger(__name__)

RETRY_TIMEOUT = 10.0
"""Seconds for which a change is retried while other writers keep changing what it reads."""

ANNOTATIONS = "annotations"
"""The name of annotations among the fields of an effect: a note, not a field of the record."""
_NEEDED_REFERENCES = {EntityKind.RUN: "study_id", EntityKind.PHYSICAL_WORKER: "logical_worker_id"}

_DECODED_TOGETHER = 10
"""Records: it takes less than a millisecond, and some where each has a long list."""

Result = TypeVar("Result")
Record = TypeVar("Record", bound=Model)


class Transaction:
    """The reads and pending writes of one change. Reads see the transaction's own writes."""

    def __init__(self, backend: ResultsBackend, dialect: Dialect, *, status_beside: bool = False) -> None:
        self._backend = backend
        self._dialect = dialect
        self._status_beside = status_beside
        self._steps = Steps()
        self._raw: dict[Key, Raw | None] = {}
        self._entries: dict[Key, Entry] = {}
        self._now: dict[Key, Model | None] = {}
        self._read_notes: dict[NoteKey, str | None] = {}
        self._notes: dict[NoteKey, str | None] = {}
        self._owners: dict[NameKey, str | None] = {}
        self._owners_now: dict[NameKey, str | None] = {}

    async def prefetch(self, keys: Iterable[Key]) -> None:
        """Reads many records at once, for later calls of `get`."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._raw]
        if missing:
            for number, (key, raw) in enumerate((await self._backend.read_raw(missing)).items(), 1):
                if not number % _DECODED_TOGETHER:
                    await self._steps.turn()
                self._raw[key] = raw
                self._entries[key] = Entry(key, None) if raw is None else decode(key.kind, key.id, raw)
                self._now.setdefault(key, self._entries[key].record)  # a record that was put before it was read stays

    async def read_ahead(
        self, keys: Iterable[Key] = (), names: Iterable[NameKey] = (), notes: Iterable[NoteKey] = ()
    ) -> None:
        """Reads all that a change is about to ask for, in the time of one read."""
        by_kind: dict[EntityKind, list[str]] = {}
        for kind, name in names:
            by_kind.setdefault(kind, []).append(name)
        owners = [self.prefetch_owners(kind, names_of_kind) for kind, names_of_kind in by_kind.items()]
        await together(self.prefetch(keys), *owners, self.prefetch_notes(notes))

    async def get(self, model: type[Record], id_: str) -> Record | None:
        key = Key(KINDS[model], id_)
        await self.prefetch([key])
        await self._steps.turn()
        record = self._now[key]
        assert record is None or isinstance(record, model)
        return record

    async def prefetch_owners(self, kind: EntityKind, names: Iterable[str]) -> None:
        """Reads many names at once, for later calls of `owner_of`."""
        missing = [name for name in dict.fromkeys(names) if NameKey(kind, name) not in self._owners]
        if missing:
            owners = await self._backend.name_owners(kind, missing)
            for name in missing:
                self._owners[NameKey(kind, name)] = self._owners_now[NameKey(kind, name)] = owners.get(name)

    async def owner_of(self, kind: EntityKind, name: str) -> str | None:
        """The id in Merlin's name map for a name, whether or not a record has it."""
        await self.prefetch_owners(kind, [name])
        return self._owners_now[NameKey(kind, name)]

    def is_readable(self, key: Key, field_name: str) -> bool:
        """Whether a field could be read, so that overwriting it loses nothing unknown."""
        entry = self._entries.get(key)
        return entry is None or all(problem.field != field_name for problem in entry.problems)

    async def note(self, key: NoteKey) -> str | None:
        """The text of a note; None if there is none."""
        await self.prefetch_notes([key])
        return self._notes[key]

    async def prefetch_notes(self, keys: Iterable[NoteKey]) -> None:
        """Reads many notes at once, for later calls of `note`."""
        if missing := [key for key in dict.fromkeys(keys) if key not in self._notes]:
            read = await self._backend.read_notes(missing)
            self._read_notes.update(read)
            self._notes.update(read)

    def set_note(self, key: NoteKey, text: str | None) -> None:
        """Sets a note; None removes it. If it was read before, the commit checks that it is still the same."""
        self._notes[key] = text

    def put(self, record: Model) -> None:
        """Creates or updates a record. An existing one must have been read before: only changed fields are written.

        Raises `InvalidValueError` for a run without a study and a physical worker without a logical one, unless it is
        stored like that already: Merlin 2.0.0b4 fails when it shows such a run or deletes such a worker.
        """
        key = Key(KINDS[type(record)], record.id)
        needed = _NEEDED_REFERENCES.get(key.kind)
        if needed is not None and getattr(record, needed) is None:
            before = None if (entry := self._entries.get(key)) is None else entry.record
            if before is None or getattr(before, needed) is not None:
                raise InvalidValueError(
                    f"It is required: Merlin fails at a {key.kind.replace('_', ' ')} without it.", needed
                )
        self._now[key] = record

    def check_storable(self, record: Model) -> None:
        """Raises `InvalidValueError` for a run status that the record's dialect can't express."""
        if not isinstance(record, RunModel) or record.run_status in (RunStatus.RUNNING, RunStatus.COMPLETED):
            return
        raw = self._raw.get(Key(EntityKind.RUN, record.id))
        if raw is None or self._status_beside:
            only_tells_completion = not self._dialect.run_status
        else:
            only_tells_completion = is_legacy(EntityKind.RUN, raw) is True
        if only_tells_completion:
            raise InvalidValueError(
                "This run is stored in the format of Merlin before 2.0.0b3, which has no other status: "
                "use RUNNING or COMPLETED.",
                "run_status",
            )

    def append(self, record: Any, field_name: str, id_: str) -> None:
        """Adds an id to a record's list of ids, unless it is there; a list that can't be read is not changed."""
        ids = getattr(record, field_name)
        if id_ not in ids and self.is_readable(Key(KINDS[type(record)], record.id), field_name):
            self.put(with_value(record, field_name, (*ids, id_)))

    def remove(self, record: Any, field_name: str, gone: Collection[str]) -> None:
        """Removes ids from a record's list of ids; a list that can't be read is not changed."""
        ids = getattr(record, field_name)
        left = tuple(filterfalse(gone.__contains__, ids))
        if left != ids and self.is_readable(Key(KINDS[type(record)], record.id), field_name):
            self.put(with_value(record, field_name, left))

    def delete(self, key: Key) -> None:
        """Deletes a record with its annotations, and a run with its history."""
        self._now[key] = None
        for note, owners in OWNERS.items():
            if key.kind in owners:
                self.set_note(NoteKey(note, key.id), None)

    def set_owner(self, kind: EntityKind, name: str, id_: str | None) -> None:
        """Sets the name map's id for a name that `owner_of` has read; None removes the entry."""
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
            elif fields := changed_fields(before, after) + self._annotated(key):
                effects.append(Effect(Action.UPDATED, key, fields))
        return effects

    def _annotated(self, key: Key) -> tuple[str, ...]:
        note = NoteKey(NoteKind.ANNOTATIONS, key.id)
        is_new = note in self._read_notes and self._read_notes[note] != self._notes[note]
        return (ANNOTATIONS,) if is_new else ()

    def changed_notes(self) -> list[NoteKey]:
        """The notes that the commit will write; one that was not read counts as changed."""
        read = self._read_notes
        return [key for key, text in self._notes.items() if key not in read or read[key] != text]

    def write_set(self, id_: str) -> WriteSet:
        """The reads to compare and the writes to make, encoded for the backend. `id_` identifies this commit."""
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
        notes = {key: self._notes[key] for key in self.changed_notes()}
        return WriteSet(id_, self._raw, self._owners, written, frozenset(deleted), names, self._read_notes, notes)


Change = Callable[[Transaction], Awaitable[Result]]


class TransactionRunner:
    """Runs changes on one backend, in `Turns`, so that those of one process seldom conflict with each other."""

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
        self._turns = Turns()
        self.is_ending = False
        """Set when the server is about to end: the steps that run are finished, and no other one begins."""
        self.before_commit: Callable[[Collection[Effect]], None] = lambda _effects: None
        """Called with the effects, before they are visible to anybody."""

    async def begin(self) -> Transaction:
        required = await self._backend.required_dialect()
        if required is not None:
            return Transaction(self._backend, required)
        if self._dialect is not None:
            return Transaction(self._backend, self._dialect, status_beside=self._dialect == CURRENT)
        if not self._read_model.dialects.has_current:
            await self.feed.refresh(())  # a record that was noticed and not yet read decides
        return Transaction(self._backend, self._read_model.dialects.of_new_records())

    async def run(
        self, change: Change[Result], claim: Claim | None = None
    ) -> tuple[Result, list[Effect], list[NoteKey]]:
        """Commits a change. Returns its result, its effects, and the notes to read back.

        After a cancellation nothing was written, and nothing will be, unless it returns.
        Raises `ConflictError`, `BackendError`, and what the change itself raises.
        """
        async with self._turns.turn() as end_turn:
            done = await self._attempt(change, claim, end_turn)
        if done is not None:
            return done
        async with self._turns.turn_to_repeat() as end_turn:
            deadline = time.monotonic() + RETRY_TIMEOUT
            attempt = 0
            while (done := await self._attempt(change, claim, end_turn)) is None:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"Other writers kept changing the same records for {RETRY_TIMEOUT:.0f} seconds. "
                        "Nothing was changed: try again."
                    )
                attempt += 1
                await asyncio.sleep(random.random() * min(0.1, 0.001 * 2**attempt))  # noqa: S311 - spreads out writers
            return done

    async def _attempt(
        self, change: Change[Result], claim: Claim | None, end_turn: Callable[[], None]
    ) -> tuple[Result, list[Effect], list[NoteKey]] | None:
        """None if others have written what the change had read."""
        transaction = await self.begin()
        if claim is not None and claim.is_of_another(await transaction.note(claim.key)):
            raise AlreadyBegunError("This mutation was begun before, with the same key.")
        result = await change(transaction)
        effects = transaction.effects()
        batch = transaction.write_set(str(uuid.uuid4()))
        if claim is not None and not batch.is_empty:
            transaction.set_note(claim.key, claim.text_with(described(effects)))
            batch = transaction.write_set(batch.id)
        raise_if_cancelled()
        self.before_commit(effects)
        with self.feed.writing(batch):
            if not batch.is_empty and not await self._backend.commit(batch, end_turn):
                return None
        if claim is not None and not batch.is_empty:
            claim.note(described(effects))
        self.feed.unread |= {*batch.written, *batch.deleted}
        return result, effects, self._notes_to_refresh(batch)

    def _notes_to_refresh(self, batch: WriteSet) -> list[NoteKey]:
        """The notes that may differ from the copy: most deletions remove some that do not exist."""
        return [
            key
            for key, text in batch.notes.items()
            if key.kind in FOLLOWED
            if text is not None or key.kind not in OWNERS or key.id in self._read_model.noted(key.kind)
        ]
