"""The writes of this process that are under way: what the database tells of them is no news."""

from __future__ import annotations

from server.database.backends.base import Changed, Notice
from server.database.backends.write_set import WriteSet
from server.database.models import Key


class OwnWrites:
    def __init__(self) -> None:
        self._writes: dict[str, WriteSet] = {}
        """By id."""

    def begin(self, batch: WriteSet) -> None:
        self._writes[batch.id] = batch

    def end(self, batch: WriteSet) -> bool:
        """Whether it was still under way."""
        return self._writes.pop(batch.id, None) is not None

    def change(self, key: Key) -> bool:
        return any(write.changes(key) for write in self._writes.values())

    def explain(self, notice: Notice) -> bool:
        """Whether all that may have changed is written just now."""
        if not self._writes or not isinstance(notice, Changed):
            return False
        writes = self._writes.values()
        kinds = {name.kind for write in writes for name in write.names} if notice.name_maps else set()
        return (
            all(map(self.change, notice.keys))
            and all(any(note in write.notes for write in writes) for note in notice.notes)
            and notice.name_maps <= kinds
        )
