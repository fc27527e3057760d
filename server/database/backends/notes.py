"""Notes: what this server stores in Merlin's database for itself, beside Merlin's records.

A note has a kind, and an id, which mostly is that of an entity: in Redis its key is `merlin-graphql:<kind>:<id>`, in
SQLite it stands in a table of its own. Merlin reads neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from server.database.models import EntityKind

PREFIX = "merlin-graphql"
_DAY = 86_400


class NoteKind(StrEnum):
    ANNOTATIONS = "annotations"
    """A JSON object that clients attach to a study or a run; it is deleted with its entity."""
    HISTORY = "history"
    """The changes of status of a run, with their times: a JSON list; it is deleted with the run."""
    DELETED = "deleted"
    """A tombstone: a JSON object that describes a deleted run. It tells a resurrected run from a new one."""
    OUTCOME = "outcome"
    """What became of a mutation that was sent with an idempotency key; its id is a digest of that key."""


FOLLOWED = frozenset({NoteKind.ANNOTATIONS, NoteKind.HISTORY, NoteKind.DELETED})
"""The kinds that the copy holds, and whose changes are followed."""
OWNERS: Mapping[NoteKind, tuple[EntityKind, ...]] = MappingProxyType(
    {NoteKind.ANNOTATIONS: (EntityKind.RUN, EntityKind.STUDY), NoteKind.HISTORY: (EntityKind.RUN,)}
)
"""The kinds that are deleted with their entities, and the kinds of these."""
LIFETIMES: Mapping[NoteKind, int] = MappingProxyType({NoteKind.DELETED: 7 * _DAY, NoteKind.OUTCOME: 600})
"""Seconds for which a note of a kind is kept; the others are kept until they are removed."""


class NoteKey(NamedTuple):
    kind: NoteKind
    id: str
    """The id of the entity, or another one; ids are unique over the four kinds of entities."""

    def __str__(self) -> str:
        return f"{PREFIX}:{self.kind}:{self.id}"


class Note(NamedTuple):
    """The text of a key; None if there is none."""

    key: NoteKey
    text: str | None
