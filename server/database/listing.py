"""A listing of the whole database, applied to the copy while it arrives.

A key that is read again meanwhile is newer than what was listed of it: the listing has no say about it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from server.database.backends.notes import FOLLOWED, Note, NoteKey, NoteKind
from server.database.models import EntityKind, Entry, Key
from server.database.read_model import ReadModel
from server.database.steps import portions_of

_KEYS_PER_STEP = 1000


class Listing:
    """What one listing says of the copy."""

    def __init__(self, read_model: ReadModel) -> None:
        self._read_model = read_model
        self._listed: dict[EntityKind, set[str]] = {kind: set() for kind in EntityKind}
        self._read_again: set[Key] = set()

    def note_read_again(self, keys: Collection[Key]) -> None:
        self._read_again.update(keys)

    def current(self, entries: Iterable[Entry]) -> list[Entry]:
        """Takes entries of the listing. Returns those that count."""
        counting = []
        for entry in entries:
            key, record = entry.key, entry.record
            self._listed[key.kind].add(key.id if record is None else record.id)  # the copy's string: no more memory
            if key not in self._read_again:
                counting.append(entry)
        return counting

    def absent(self) -> Iterator[list[Entry]]:
        """To be called when all was listed: removals of what the copy has and the listing has not, step by step.

        Something that was read again between two steps is not removed.
        """
        known = [(kind, list(table.records)) for kind, table in self._read_model.tables.items()]
        unreadable = [key for key in self._read_model.problems if self._read_model.get(key) is None]
        known += [(key.kind, [key.id]) for key in unreadable]
        for kind, ids in known:
            listed = self._listed[kind]
            for some in portions_of(ids, _KEYS_PER_STEP):
                keys = [Key(kind, id_) for id_ in some if id_ not in listed]
                yield [Entry(key, None) for key in keys if key not in self._read_again]

    def absent_notes(self, notes: Sequence[Note]) -> Iterator[list[Note]]:
        """Removals of the notes that the copy has, and that are not among all notes of the database, step by step."""
        listed: dict[NoteKind, set[str]] = {kind: set() for kind in FOLLOWED}
        for some in portions_of(notes, _KEYS_PER_STEP):
            for (kind, id_), _ in some:
                listed[kind].add(id_)
            yield []
        for kind, ids in listed.items():
            for some_ids in portions_of(list(self._read_model.noted(kind)), _KEYS_PER_STEP):
                yield [Note(NoteKey(kind, id_), None) for id_ in some_ids if id_ not in ids]
