"""The table of one kind: its records by id, by name and in the default order."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from server.database.default_order import launch_at, position_of
from server.database.links import discard, insert
from server.database.models import Model, name_of
from server.database.ordered import SortKey
from server.database.row_index import RowIndex
from server.database.steps import RECORDS_PER_STEP, portions_of, sorted_parts

Record = TypeVar("Record", bound=Model)


class Table(Generic[Record]):
    """The records of one kind: by id, by name and in the default order."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.order: list[SortKey] = []
        self.name_owners: Mapping[str, str] = {}
        """For names that several records have: the id in Merlin's own name map, as last read."""
        self.positions: dict[str, SortKey] = {}
        """The position of each record, by id. All orders share this tuple, to save memory."""
        self._ids: dict[str, str | list[str]] = {}
        """The id of each name; a sorted list of ids if several records have the name."""
        self._duplicate_names: dict[str, None] = {}
        """The names that several records have."""
        self.capitals: dict[str, str] = {}
        """Ids with upper-case letters, by their lower-case form. Merlin never writes such ids, but others may."""
        self.views: list[dict[str, Any]] = []
        """Caches of objects made from single records, by id: an entry is dropped when its record changes."""
        self.index = RowIndex(self.records, self.positions)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        """The records in the default order."""
        return (self.records[id_] for _, id_ in self.order)

    def get(self, id_: str) -> Record | None:
        return self.records.get(id_)

    def position(self, record: Record) -> SortKey:
        """The position of a record, whether or not it is in the table."""
        return self.positions[record.id] if self.records.get(record.id) is record else position_of(record)

    def launch_of(self, record: Record) -> int | None:
        """The launch time of a run in seconds since the year 1, local to the site; None if it has none.

        Taken from the position, so that no time is parsed again.
        """
        return launch_at(self.position(record))

    def named(self, name: str) -> Record | None:
        """The record with a name; of several, the one that Merlin finds."""
        ids = self._ids.get(name)
        match ids:
            case None:
                return None
            case str():
                return self.records[ids]
            case _:
                owner = self.name_owners.get(name)
                return self.records[owner if owner in ids else ids[0]]

    def ids_named(self, name: str) -> tuple[str, ...]:
        """The ids of all records with a name."""
        ids = self._ids.get(name, ())
        return (ids,) if isinstance(ids, str) else tuple(ids)

    @property
    def names(self) -> Collection[str]:
        """All names of records, each once."""
        return self._ids.keys()

    def duplicate_names(self) -> Mapping[str, tuple[str, ...]]:
        return {name: self.ids_named(name) for name in self._duplicate_names}

    def is_duplicate(self, name: str) -> bool:
        return name in self._duplicate_names

    def assign_names(self, owners: Mapping[str, str]) -> bool:
        """Replaces `name_owners`. Returns whether any name now finds another record."""
        names = {*self.name_owners, *owners}
        before = {name: self.named(name) for name in names}
        self.name_owners = dict(owners)
        return any(self.named(name) is not record for name, record in before.items())

    def assigned_names(self) -> tuple[tuple[str, str], ...]:
        """The names, and their ids, that find another record than the first one."""
        found = ((name, owner, self._ids.get(name)) for name, owner in self.name_owners.items())
        return tuple(sorted((name, owner) for name, owner, ids in found if isinstance(ids, list) and owner in ids[1:]))

    def store(self, id_: str, record: Record | None) -> None:
        """Stores or removes a record, without updating the indexes; call `reindex` or `rebuild` afterwards."""
        for view in self.views:
            view.pop(id_, None)
        if record is None:
            self.records.pop(id_, None)
        else:
            self.records[id_] = record
        if (usual := id_.lower()) != id_:
            self.capitals.pop(usual, None)
            if record is not None:
                self.capitals[usual] = id_

    def reindex(self, id_: str, before: Record | None, after: Record | None) -> None:
        """Updates the indexes for one record, after `store`."""
        old = self.positions.get(id_)
        new = None if after is None else position_of(after)
        if old != new:
            if old is not None:
                discard(self.order, old)
                del self.positions[id_]
            if new is not None:
                insert(self.order, new)
                self.positions[id_] = new
        self.index.changed(id_, before, after)
        old_name = None if before is None else name_of(before)
        new_name = None if after is None else name_of(after)
        if old_name != new_name:
            if old_name is not None:
                self._forget_name(old_name, id_)
            if new_name is not None:
                self._add_name(new_name, id_)

    def rebuild(self) -> Iterator[None]:
        """Rebuilds the indexes in place, since others hold references to `order` and `positions`; step by step."""
        self.index.clear()
        self.positions.clear()
        self._ids.clear()
        self._duplicate_names.clear()
        for records in portions_of(list(self.records.values()), RECORDS_PER_STEP):
            self.positions.update({record.id: position_of(record) for record in records})
            for record in records:
                name = name_of(record)
                if name is not None:
                    self._add_name(name, record.id)
            yield
        self.order.clear()
        for part in sorted_parts(list(self.positions.values())):
            self.order += part
            yield

    def _add_name(self, name: str, id_: str) -> None:
        ids = self._ids.get(name)
        match ids:
            case None:
                self._ids[name] = id_
            case str():
                self._ids[name] = sorted((ids, id_))
                self._duplicate_names[name] = None
            case _:
                insort(ids, id_)

    def _forget_name(self, name: str, id_: str) -> None:
        ids = self._ids[name]
        if isinstance(ids, str):
            del self._ids[name]
            return
        ids.remove(id_)
        if len(ids) == 1:
            self._ids[name] = ids[0]
            del self._duplicate_names[name]
