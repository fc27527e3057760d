"""What a change expects to find in the database: what the live copy has, so that nothing has to be read before it.

The commit compares all of it with what stands, as it compares what was read. Where something stands otherwise, the
change runs again, and reads.
"""

from __future__ import annotations

from collections.abc import Callable

from server.database.models import LISTING, EntityKind, Entry, Key
from server.database.read_model import ReadModel


class MustReadError(Exception):
    """A change needs more than what is expected: it has to read."""


class Expected:
    """The copy, as far as it tells what text stands in the database."""

    def __init__(self, copy: ReadModel, is_behind: Callable[[Key], bool]) -> None:
        """`is_behind`: whether the copy is known to have an older content of a key."""
        self._copy = copy
        self._is_behind = is_behind

    def entry(self, key: Key, *, without_lists: bool = False) -> Entry | None:
        """The content of a key; None where it has to be read. The lists of what changes often are behind most often."""
        copy = self._copy
        if key in copy.problems or not copy.dialects.is_current(key):
            return None
        if self._is_behind(key) and not (without_lists and key.kind in LISTING):
            return None
        return Entry(key, copy.get(key))

    def owner(self, kind: EntityKind, name: str) -> tuple[str | None] | None:
        """The id in Merlin's name map, if there is one; None where it has to be read."""
        match self._copy.tables[kind].ids_named(name):
            case ():
                return (None,)
            case (id_,):
                return (id_,)
            case _:
                return None
