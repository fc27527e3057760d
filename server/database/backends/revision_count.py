"""The count of revisions, which all servers of one database share: a number of ours, beside Merlin's records.

Each write of a server counts on in the database. What Merlin changes is counted by each copy for itself, which is
stored a moment later. The highest number counts, so it never goes back, and all are equal when nothing changes.
"""

from __future__ import annotations

MAX_REVISION = 2**31 - 1
"""The highest Int of GraphQL. The count stays there."""
_MAX_LEAD = 10_000
"""How far a client's position may be ahead of what is known here, at most: nobody can use up the numbers at once."""


class RevisionCount:
    """The count as one process knows it."""

    def __init__(self) -> None:
        self.own = 0
        """The revision of the copy."""
        self._stored = 0

    @property
    def stored(self) -> int:
        """The number in the database, as last read; 0 without one."""
        return self._stored

    def note_stored(self, value: object) -> None:
        """Notes what was read from the database. What is no number in range counts as none: others may write there."""
        text = str(value)
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_REVISION)) else 0
        self._stored = number if number <= MAX_REVISION else 0

    def advance(self) -> None:
        """Counts a change of the copy."""
        self.own = max(self.own + 1, self._stored)

    def follow(self) -> None:
        """Takes the number in the database, if it is higher: the same content was counted on by another server."""
        self.own = max(self.own, self._stored)

    def follow_position(self, revision: int) -> None:
        """Takes the revision of another server's copy, whose changes this one has."""
        self.own = max(self.own, min(revision, self.own + _MAX_LEAD, MAX_REVISION))

    @property
    def to_store(self) -> int | None:
        """The number that the database should have; None if it has it."""
        number = min(self.own, MAX_REVISION)
        return number if number > self._stored else None
