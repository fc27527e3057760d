"""A write set: what a transaction has read and what it writes, to be committed whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from server.database.backends.codec import Raw
from server.database.backends.list_patch import ListPatch, patched
from server.database.backends.notes import NoteKey
from server.database.models import EntityKind, Key


class NameKey(NamedTuple):
    """One entry of a name map."""

    kind: EntityKind
    name: str


@dataclass(frozen=True, slots=True)
class WriteSet:
    """The input of `ResultsBackend.commit`."""

    id: str
    """Identifies the write: if it is sent again, it is not applied again."""
    read: Mapping[Key, Raw | None]
    """All fields of the records that were read; the write is made only if all of them are still the same."""
    owners: Mapping[NameKey, str | None]
    """The entries of name maps that were read; compared like the records."""
    written: Mapping[Key, Mapping[str, str]]
    """The fields that change, or all of a new record."""
    deleted: frozenset[Key]
    names: Mapping[NameKey, str | None]
    """The entries of name maps to write; None removes one. A store without name maps ignores them."""
    read_notes: Mapping[NoteKey, str | None] = field(default_factory=dict)
    """The notes that were read; compared like the records."""
    notes: Mapping[NoteKey, str | None] = field(default_factory=dict)
    """The notes to write; None removes one. They expire after their `LIFETIMES`."""
    unread: Mapping[Key, Collection[str]] = field(default_factory=dict)
    """The lists that `read` leaves out, of the records that have some: whatever stands there is not compared."""
    patches: Mapping[Key, Mapping[str, ListPatch]] = field(default_factory=dict)
    """What to do to such lists; where one of them can't be patched, nothing is written."""

    @property
    def is_empty(self) -> bool:
        return not (self.written or self.deleted or self.names or self.notes or self.patches)

    def changes(self, key: Key) -> bool:
        return key in self.written or key in self.patches or key in self.deleted

    @property
    def changed(self) -> set[Key]:
        return {*self.written, *self.patches, *self.deleted}

    def written_over(self, stands: Mapping[Key, Raw]) -> Mapping[Key, Mapping[str, str]] | None:
        """`written`, and the lists after their patches; None where one can't be patched. `stands`: what is there."""
        if not self.patches:
            return self.written
        written = {key: dict(fields) for key, fields in self.written.items()}
        for key, patches in self.patches.items():
            for name, patch in patches.items():
                if (text := patched(stands.get(key, {}).get(name), patch)) is None:
                    return None
                written.setdefault(key, {})[name] = text
        return written

    def is_as_read(self, key: Key, stands: Raw | None) -> bool:
        """Whether a record that was read still stands so."""
        read, unread = self.read[key], self.unread.get(key, ())
        if not unread or stands is None:
            return stands == read
        return len(stands) == len(read or ()) + len(unread) and read == {
            name: text for name, text in stands.items() if name not in unread
        }
