"""Notes: what this server stores in Merlin's database for itself, beside Merlin's records.

A note belongs to an entity and has a kind: in Redis its key is `merlin-graphql:<kind>:<id>`, in SQLite in a table
of its own. Merlin reads neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

PREFIX = "merlin-graphql"
_DAY = 86_400


class NoteKind(StrEnum):
    ANNOTATIONS = "annotations"
    """A JSON object that clients attach to a study or a run; it is deleted with its entity."""
    DELETED = "deleted"
    """A tombstone: a JSON object that describes a deleted run. It tells a resurrected run from a new one."""


LIFETIMES: Mapping[NoteKind, int] = MappingProxyType({NoteKind.DELETED: 7 * _DAY})
"""Seconds for which a note of a kind is kept; the others are kept until they are removed."""


class NoteKey(NamedTuple):
    kind: NoteKind
    id: str
    """The id of the entity; ids are unique over the four kinds of entities."""

    def __str__(self) -> str:
        return f"{PREFIX}:{self.kind}:{self.id}"


class Note(NamedTuple):
    """The text of a key; None if there is none."""

    key: NoteKey
    text: str | None
