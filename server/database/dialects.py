"""Which versions of Merlin wrote the records: one database may hold those of several."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from server.database.backends.codec import CURRENT, LEGACY, Dialect
from server.database.models import EntityKind, Entry, Key


class Dialects:
    """Told of every entry that the copy takes over. Keeps what is not as 2.0.0b4 writes it, so mostly nothing."""

    def __init__(self, records: Mapping[EntityKind, Collection[str]]) -> None:
        self._records = records
        """The ids of all that stand, of the kinds whose fields tell."""
        self._others: Mapping[EntityKind, dict[str, bool]] = {kind: {} for kind in records}
        """The ids of those that are not as 2.0.0b4 writes them, and whether an older Merlin does."""

    def note(self, entry: Entry) -> None:
        others = self._others.get(entry.key.kind)
        if others is None:
            return
        if entry.record is None or entry.is_legacy is False:
            others.pop(entry.key.id, None)
        else:
            others[entry.key.id] = entry.is_legacy is True

    def is_current(self, key: Key) -> bool:
        """Whether 2.0.0b4 writes a record like that, or there is none."""
        others = self._others.get(key.kind)
        return others is None or key.id not in others

    @property
    def has_current(self) -> bool:
        """Whether any record is as 2.0.0b4 writes it."""
        return any(len(ids) > len(self._others[kind]) for kind, ids in self._records.items())

    def of_new_records(self) -> Dialect:
        """That of 2.0.0b4, unless all records that tell are an older Merlin's: then it is one that reads these.

        2.0.0b4 reads no physical worker of the old dialect, and one of them makes `merlin query-workers` fail for all.
        """
        if self.has_current:
            return CURRENT
        return LEGACY if any(True in others.values() for others in self._others.values()) else CURRENT
