"""A write set: what a transaction has read and what it writes, to be committed whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from server.database.backends.codec import Raw
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

    @property
    def is_empty(self) -> bool:
        return not (self.written or self.deleted or self.names or self.notes)
