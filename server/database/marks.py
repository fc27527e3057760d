"""Marks: what of the database is to be read again, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from server.database.backends.notes import NoteKey
from server.database.models import EntityKind, Key


@dataclass
class Marks:
    keys: set[Key] = field(default_factory=set)
    notes: set[NoteKey] = field(default_factory=set)
    name_maps: set[EntityKind] = field(default_factory=set)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.keys or self.notes or self.name_maps or self.waiting)

    def add(self, keys: Collection[Key], notes: Collection[NoteKey], name_maps: Collection[EntityKind]) -> None:
        self.keys.update(keys)
        self.notes.update(notes)
        self.name_maps.update(name_maps)
