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
    id: str
    """Of this one write: however often it is sent, it is applied once."""
    read: Mapping[Key, Raw | None]
    """The records as they were read, all fields of each; the write is made only if they all stand as they did."""
    owners: Mapping[NameKey, str | None]
    """Likewise what the name maps held."""
    written: Mapping[Key, Mapping[str, str]]
    """The fields that change, or all of a new record."""
    deleted: frozenset[Key]
    names: Mapping[NameKey, str | None]
    """What the name maps are to hold; None drops the entry. A store without name maps has nothing to do for them."""
    read_notes: Mapping[NoteKey, str | None] = field(default_factory=dict)
    """The notes as they were read; compared like the records."""
    notes: Mapping[NoteKey, str | None] = field(default_factory=dict)
    """What the notes are to hold; None removes one. They expire as `LIFETIMES` says."""

    @property
    def is_empty(self) -> bool:
        return not (self.written or self.deleted or self.names or self.notes)
