"""The index of one kind's records by row: sets of rows by a value or an owner, and orders that are kept.

Each part is built when it is first asked for, then kept up to date. What nobody asks for any more is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from time import monotonic
from typing import Any, Protocol, TypeVar

from server.database.kept_order import KeptOrder
from server.database.ordered import SortKey, Value
from server.database.rows import NO_ROWS, Rows, union
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of

T = TypeVar("T")

DEFAULT = "default"
"""The name of the kind's default order, where it is kept."""
_KEPT_FOR = 600.0
"""Seconds for which an order is kept that nobody asks for."""
_MAX_ORDERS = 8
"""Orders of one kind that are kept; each takes about 30 bytes a record."""
_MAX_OWNERS = 2_000
"""Owners whose members are kept as a set."""
_MAX_STALE = 1_000
_STALE_SHARE = 8
"""An order is dropped when more rows are stale than this, and than one in so many of all."""


class Owning(Protocol):
    """Links of which the records are members."""

    listeners: list[Callable[[str, str], None]]
    """Called with the ids of the owner and the member of a link that has come or gone."""

    def members_of(self, owner_id: str) -> Sequence[SortKey]: ...


class ValueSets:
    """The rows by a field of their records: by each of its values, where it is a list; an empty list is `()`."""

    def __init__(self, field: str) -> None:
        self._value_of = attrgetter(field)
        self._sets: defaultdict[Hashable, Rows] = defaultdict(Rows)

    def of(self, value: Hashable) -> Rows:
        return self._sets.get(value, NO_ROWS)

    def any_of(self, values: Iterable[Hashable]) -> Rows:
        return union([self._sets[value] for value in values if value in self._sets])

    def fill(self, ids: Sequence[str | None], records: Mapping[str, Any]) -> None:
        """Gives way."""
        found: defaultdict[Hashable, list[int]] = defaultdict(list)
        value_of = self._value_of
        for some in portions_of(range(len(ids)), RECORDS_PER_STEP):
            for row in some:
                if (id_ := ids[row]) is not None:
                    value = value_of(records[id_])
                    for one in _each(value) if type(value) is tuple else (value,):
                        found[one].append(row)
            give_way()
        for value, rows in found.items():
            self._sets[value] = Rows(rows)
            give_way()

    def changed(self, row: int, before: Any, after: Any) -> None:
        old = () if before is None else _each(self._value_of(before))
        new = () if after is None else _each(self._value_of(after))
        if old == new:
            return
        for value in old:
            self._sets[value].discard(row)
            if value not in new and not self._sets[value]:
                del self._sets[value]
        for value in new:
            self._sets[value].add(row)


def _each(value: Any) -> tuple[Hashable, ...]:
    if type(value) is not tuple:
        return (value,)
    return tuple(dict.fromkeys(value)) or ((),)


class _Members:
    """The rows of the members of owners."""

    def __init__(self, links: Owning) -> None:
        self._links = links
        self._sets: dict[str, Rows] = {}
        """Those asked for last, the newest at the end."""
        self._stale: defaultdict[str, set[str]] = defaultdict(set)
        """By owner, the members whose links have come or gone since its set was made."""
        links.listeners.append(self._note)

    def of(self, owner_id: str, numbers: Mapping[str, int], positions: Mapping[str, SortKey]) -> Rows:
        members = self._links.members_of(owner_id)
        rows = self._sets.pop(owner_id, None)
        if rows is None:
            rows = Rows()
            for some in portions_of(members, RECORDS_PER_STEP):
                rows.update([numbers[id_] for _, id_ in some])
                give_way()
            if len(self._sets) >= _MAX_OWNERS:
                self._forget(next(iter(self._sets)))
        for id_ in self._stale.pop(owner_id, ()):
            if (row := numbers.get(id_)) is None:
                continue  # it was deleted, and `left` has removed it
            index = bisect_left(members, positions[id_])
            if index < len(members) and members[index][1] == id_:
                rows.add(row)
            else:
                rows.discard(row)
        self._sets[owner_id] = rows
        return rows

    def left(self, row: int) -> None:
        for rows in self._sets.values():
            rows.discard(row)

    def clear(self) -> None:
        self._sets.clear()
        self._stale.clear()

    def _forget(self, owner_id: str) -> None:
        del self._sets[owner_id]
        self._stale.pop(owner_id, None)

    def _note(self, owner_id: str, member_id: str) -> None:
        if owner_id in self._sets:
            self._stale[owner_id].add(member_id)


class RowIndex:
    """It looks into the live table, and is told of every change of it."""

    def __init__(self, records: Mapping[str, Any], positions: Mapping[str, SortKey]) -> None:
        self._records = records
        self._positions = positions
        self._members: dict[Owning, _Members] = {}
        self._changes = 0
        self.clear()

    def clear(self) -> None:
        """Drops everything: it is built anew when it is asked for."""
        self._changes += 1
        self._is_built = False
        self._numbers: dict[str, int] = {}
        self.ids: list[str | None] = []
        """The id of each row's record; None of a row without one."""
        self._free: list[int] = []
        self._everything = Rows()
        self._sets: dict[str, ValueSets] = {}
        self._orders: dict[str, KeptOrder] = {}
        self._used: dict[str, float] = {}
        """When each order was last asked for, by the monotonic clock."""
        for members in self._members.values():
            members.clear()

    @property
    def everything(self) -> Rows:
        self._build()
        return self._everything

    def row(self, id_: str) -> int | None:
        """The row of a record; None if there is no such record."""
        self._build()
        return self._numbers.get(id_)

    def rows(self, ids: Iterable[str]) -> Rows:
        """The rows of the records with these ids, as far as there are any."""
        self._build()
        numbers = self._numbers
        return Rows([numbers[id_] for id_ in ids if id_ in numbers])

    def rows_of(self, positions: Sequence[SortKey]) -> Rows:
        """The rows of existing records. Gives way."""
        self._build()
        rows = Rows()
        for some in portions_of(positions, RECORDS_PER_STEP):
            rows.update([self._numbers[id_] for _, id_ in some])
            give_way()
        return rows

    def by(self, field: str) -> ValueSets:
        """The sets of rows by a field of the records."""
        self._build()
        sets = self._sets.get(field)
        if sets is None:

            def build() -> ValueSets:
                made = ValueSets(field)
                made.fill(self.ids, self._records)
                return made

            sets = self._sets[field] = self._undisturbed(build)
        return sets

    def members(self, links: Owning, owner_id: str) -> Rows:
        """The rows of an owner's members."""
        self._build()
        if links not in self._members:
            self._members[links] = _Members(links)
        return self._members[links].of(owner_id, self._numbers, self._positions)

    def order(self, name: str, value_of: Callable[[Any], Value]) -> KeptOrder:
        """The order with a name; `value_of` must depend on nothing but what `changed` and `touch` tell of."""
        self._build()
        self._drop_idle()
        order = self._orders.get(name)
        if order is None:

            def build() -> KeptOrder:
                made = KeptOrder(value_of)
                made.fill(self.ids, self._records)
                return made

            order = self._undisturbed(build)
            while len(self._orders) >= _MAX_ORDERS:
                self._drop(min(self._used, key=self._used.__getitem__))
            self._orders[name] = order
        self._used[name] = monotonic()
        order.settle(self.ids, self._records)
        return order

    def has_order(self, name: str) -> bool:
        return name in self._orders

    def position(self, row: int) -> SortKey:
        """In the kind's default order."""
        id_ = self.ids[row]
        assert id_ is not None
        return self._positions[id_]

    def record(self, id_: str) -> Any:
        return self._records[id_]

    def default_value(self, record: Any) -> Value:
        """The value of the kind's default order."""
        value: Value = self._positions[record.id][0]
        return value

    def changed(self, id_: str, before: Any, after: Any) -> None:
        """To be called when the table holds `after` already."""
        if not self._is_built:
            return
        self._changes += 1
        row = self._numbers.get(id_)
        if row is None:
            if after is None:
                return
            row = self._enter(id_)
        elif after is None:
            self._leave(id_, row)
        for sets in self._sets.values():
            sets.changed(row, before, after)
        self._touch(row)

    def touch(self, id_: str) -> None:
        """To be called when something else changed on which an order may depend."""
        if self._orders and (row := self._numbers.get(id_)) is not None:
            self._touch(row)

    def _touch(self, row: int) -> None:
        for name, order in tuple(self._orders.items()):
            order.stale.add(row)
            if len(order.stale) > max(_MAX_STALE, len(self.ids) // _STALE_SHARE):
                self._drop(name)

    def _build(self) -> None:
        if self._is_built:
            return

        def build() -> tuple[dict[str, int], list[str | None]]:
            numbers: dict[str, int] = {}
            ids: list[str | None] = list(self._records)
            for some in portions_of(range(len(ids)), RECORDS_PER_STEP):
                numbers.update((id_, row) for row in some if (id_ := ids[row]) is not None)
                give_way()
            return numbers, ids

        self._numbers, self.ids = self._undisturbed(build)
        self._everything = Rows(range(len(self.ids)))
        self._is_built = True

    def _undisturbed(self, build: Callable[[], T]) -> T:
        """The result of building something while nothing changed: it gives way, and others may not wait for it."""
        while True:
            changes = self._changes
            built = build()
            if self._changes == changes:
                return built

    def _enter(self, id_: str) -> int:
        if self._free:
            row = self._free.pop()
            self.ids[row] = id_
        else:
            row = len(self.ids)
            self.ids.append(id_)
        self._numbers[id_] = row
        self._everything.add(row)
        return row

    def _leave(self, id_: str, row: int) -> None:
        del self._numbers[id_]
        self.ids[row] = None
        self._free.append(row)
        self._everything.remove(row)
        for members in self._members.values():
            members.left(row)

    def _drop_idle(self) -> None:
        now = monotonic()
        for name, used in tuple(self._used.items()):
            if now - used > _KEPT_FOR:
                self._drop(name)

    def _drop(self, name: str) -> None:
        del self._orders[name], self._used[name]
