"""Transactions: a change of the database happens whole or not at all, whoever else writes.

A change is a function of a `Transaction`: it reads records, then puts and deletes some. At the commit, the backend
compares every value that was read with the current one, and writes only if all are equal; else the function runs again
(optimistic concurrency). So no concurrent write is lost, not even one of Merlin, which uses no locks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import filterfalse
from typing import Any, TypeVar

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import Dialect, Raw, decode, encode, encode_field, is_entity_id, is_legacy
from server.database.backends.list_patch import ListPatch
from server.database.backends.notes import OWNERS, NoteKey, NoteKind
from server.database.backends.write_set import NameKey, WriteSet
from server.database.effects import Action, Effect, changed_fields
from server.database.errors import (
    InvalidValueError,
)
from server.database.expected import Expected, MustReadError
from server.database.models import (
    KINDS,
    LISTING,
    EntityKind,
    Entry,
    Key,
    Model,
    RunModel,
    RunStatus,
    with_value,
)
from server.database.steps import Steps
from server.database.tasks import together

ANNOTATIONS = "annotations"
"""The name of annotations among the fields of an effect: a note, not a field of the record."""
_NEEDED_REFERENCES = {EntityKind.RUN: "study_id", EntityKind.PHYSICAL_WORKER: "logical_worker_id"}

_IDENTITY = ("id", "name")
_MOST_EXPECTED = 100
"""Records: to encode more of them in one step would take long, and it matters little that many are read first."""
_DECODED_TOGETHER = 10
"""Records: it takes less than a millisecond, and some where each has a long list."""

Record = TypeVar("Record", bound=Model)


class Transaction:
    """The reads and pending writes of one change. Reads see the transaction's own writes."""

    def __init__(
        self,
        backend: ResultsBackend,
        dialect: Dialect,
        *,
        status_beside: bool = False,
        expected: Expected | None = None,
    ) -> None:
        """`expected`: what is taken for read. None: all is read."""
        self._backend = backend
        self._expected = expected
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
        self._partial: set[Key] = set()
        """The records of which only `_IDENTITY` counts for read."""
        self._patches: dict[Key, dict[str, ListPatch]] = {}

    async def prefetch(self, keys: Iterable[Key]) -> None:
        """Reads many records at once, for later calls of `get`."""
        await self._read([key for key in dict.fromkeys(keys) if not self._is_expected(key)])

    async def _read(self, keys: Sequence[Key]) -> None:
        missing = [key for key in keys if key not in self._entries]
        if missing:
            for number, (key, raw) in enumerate((await self._backend.read_raw(missing)).items(), 1):
                if not number % _DECODED_TOGETHER:
                    await self._steps.turn()
                self._raw[key] = raw
                self._entries[key] = Entry(key, None) if raw is None else decode(key.kind, key.id, raw)
                self._now.setdefault(key, self._entries[key].record)  # a record that was put before it was read stays

    def _is_expected(self, key: Key) -> bool:
        """Whether it need not be read yet: its lists, if it has some, may never be asked for."""
        if self._expected is None:
            return False
        if key.kind not in LISTING:
            return key in self._entries or self._expect(key)
        return self._expected.entry(key, without_lists=True) is not None

    def _expect(self, key: Key, *, without_lists: bool = False) -> bool:
        """Takes what is expected for read; returns whether anything is."""
        entry = None if self._expected is None else self._expected.entry(key, without_lists=without_lists)
        if entry is None:
            return False
        if len(self._entries) >= _MOST_EXPECTED:
            raise MustReadError
        self._entries[key] = entry
        self._now.setdefault(key, entry.record)
        if without_lists and entry.record is not None and key.kind in LISTING:
            self._partial.add(key)
        return True

    async def read_ahead(
        self, keys: Iterable[Key] = (), names: Iterable[NameKey] = (), notes: Iterable[NoteKey] = ()
    ) -> None:
        """Reads all that a change is about to ask for, in the time of one read."""
        by_kind: dict[EntityKind, list[str]] = {}
        for kind, name in names:
            by_kind.setdefault(kind, []).append(name)
        if self._expected is None:
            owners = [self.prefetch_owners(kind, names_of_kind) for kind, names_of_kind in by_kind.items()]
            await together(self.prefetch(keys), *owners, self.prefetch_notes(notes))
            return
        await self.prefetch(keys)  # hardly anything is read: a task for each would take longer
        for kind, names_of_kind in by_kind.items():
            await self.prefetch_owners(kind, names_of_kind)
        await self.prefetch_notes(notes)

    async def get(self, model: type[Record], id_: str) -> Record | None:
        key = Key(KINDS[model], id_)
        if key in self._partial:
            raise MustReadError
        if key not in self._entries and not self._expect(key):
            await self._read([key])
            await self._steps.turn()
        record = self._now[key]
        assert record is None or isinstance(record, model)
        return record

    async def get_without_lists(self, model: type[Record], id_: str) -> Record | None:
        """`get` for whoever relies only on that the record is there, and on its name: what else it holds need not be
        what is stored. Its lists of ids may be appended to and removed from.
        """
        key = Key(KINDS[model], id_)
        if key not in self._entries:
            self._expect(key, without_lists=True)
        if key not in self._partial:
            return await self.get(model, id_)
        record = self._now[key]
        assert record is None or isinstance(record, model)
        return record

    async def prefetch_owners(self, kind: EntityKind, names: Iterable[str]) -> None:
        """Reads many names at once, for later calls of `owner_of`."""
        missing = []
        for name in dict.fromkeys(names):
            key = NameKey(kind, name)
            if key in self._owners:
                continue
            if self._expected is not None and (owner := self._expected.owner(kind, name)) is not None:
                self._owners[key] = self._owners_now[key] = owner[0]
            else:
                missing.append(name)
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
        if key in self._partial:
            raise MustReadError
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
        raw = self._raw_of(Key(EntityKind.RUN, record.id))
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
        key = Key(KINDS[type(record)], record.id)
        if key in self._partial:
            self._patch(key, field_name, ListPatch(added=(id_,)))
            return
        ids = getattr(record, field_name)
        if id_ not in ids and self.is_readable(key, field_name):
            self.put(with_value(record, field_name, (*ids, id_)))

    def _patch(self, key: Key, field_name: str, patch: ListPatch) -> None:
        """The commit will check that each id is, or is not, listed."""
        patches = self._patches.setdefault(key, {})
        if field_name in patches or not all(map(is_entity_id, (*patch.added, *patch.removed))):
            raise MustReadError
        patches[field_name] = patch

    def remove(self, record: Any, field_name: str, gone: Collection[str]) -> None:
        """Removes ids from a record's list of ids; a list that can't be read is not changed."""
        key = Key(KINDS[type(record)], record.id)
        if key in self._partial:
            if len(gone) > 1:  # which of them are listed is not known, and each is looked for
                raise MustReadError
            if gone:
                self._patch(key, field_name, ListPatch(removed=tuple(gone)))
            return
        ids = getattr(record, field_name)
        left = tuple(filterfalse(gone.__contains__, ids))
        if left != ids and self.is_readable(key, field_name):
            self.put(with_value(record, field_name, left))

    def delete(self, key: Key) -> None:
        """Deletes a record with its annotations, and a run with its history."""
        if key in self._partial:
            raise MustReadError
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
            elif fields := self._changed_fields(key, before, after):
                effects.append(Effect(Action.UPDATED, key, fields))
        return effects

    def _changed_fields(self, key: Key, before: Model, after: Model) -> tuple[str, ...]:
        changed = () if after is before else changed_fields(before, after)
        return (*changed, *self._patches.get(key, ()), *self._annotated(key))

    def _annotated(self, key: Key) -> tuple[str, ...]:
        note = NoteKey(NoteKind.ANNOTATIONS, key.id)
        is_new = note in self._read_notes and self._read_notes[note] != self._notes[note]
        return (ANNOTATIONS,) if is_new else ()

    def changed_notes(self) -> list[NoteKey]:
        """The notes that the commit will write; one that was not read counts as changed."""
        read = self._read_notes
        return [key for key, text in self._notes.items() if key not in read or read[key] != text]

    def write_set(self, id_: str, effects: Sequence[Effect]) -> WriteSet:
        """The reads to compare and the writes to make, encoded for the backend. `id_` identifies this commit.

        `effects`: what the method of that name returns.
        """
        written: dict[Key, dict[str, str]] = {}
        deleted: set[Key] = set()
        for effect in effects:
            key, after = effect.key, self._now[effect.key]
            raw = self._raw_of(key)
            if after is None:
                deleted.add(key)
            elif raw is None or effect.action is Action.CREATED:
                written[key] = encode(after, self._dialect)
            else:
                fields = dict(
                    encode_field(after, name, raw, status_beside=self._status_beside)
                    for name in effect.fields
                    if name != ANNOTATIONS and name not in self._patches.get(key, ())
                )
                if fields:
                    written[key] = fields
        names = {name: id_ for name, id_ in self._owners_now.items() if id_ != self._owners.get(name)}
        notes = {key: self._notes[key] for key in self.changed_notes()}
        read = {key: self._raw_of(key) for key in self._entries}
        return WriteSet(
            id_,
            read,
            self._owners,
            written,
            frozenset(deleted),
            names,
            self._read_notes,
            notes,
            self._partial,
            self._patches,
        )

    def _raw_of(self, key: Key) -> Raw | None:
        """What was read of a record, or is expected to stand."""
        if key not in self._raw and (entry := self._entries.get(key)) is not None:
            record = entry.record
            if record is None:
                self._raw[key] = None
            elif key in self._partial:
                self._raw[key] = dict(encode_field(record, name, {}) for name in _IDENTITY)
            else:
                self._raw[key] = encode(record)
        return self._raw.get(key)
