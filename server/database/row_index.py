"""The index of one kind's records by row: sets of rows by a value or an owner, and orders that are kept.

Each part is built when it is first asked for, then kept up to date. What nobody asks for any more is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from time import monotonic
from typing import Any, Protocol, TypeVar

from server.database.kept_order import KeptOrder
from server.database.ordered import SortKey, Value
from server.database.rows import NO_ROWS, Rows, union
from server.database.slices import give_way, is_sliced
from server.database.steps import RECORDS_PER_STEP, portions_of
from server.database.text_column import TextColumn, TextSearch

T = TypeVar("T")
Part = TypeVar("Part", bound="_Fillable")

DEFAULT = "default"
"""The name of the kind's default order, where it is kept."""
_KEPT_FOR = 600.0
"""Seconds for which an order is kept that nobody asks for."""
BUILT_AT_ONCE = 5_000
"""Records of which a part of the index is built even where the work can't give way: it takes some milliseconds."""
_MAX_ORDERS = 8
"""Orders of one kind that are kept; each takes about 30 bytes a record."""
_MAX_OWNERS = 2_000
"""Owners whose members are kept as a set."""
_MAX_STALE = 1_000
_STALE_SHARE = 8
"""An order is dropped when more rows are stale than this, and than one in so many of all."""


class NotBuiltError(Exception):
    """A part of the index is to be built, which takes too long for work that can't give way."""


class _Fillable(Protocol):
    def fill(self, ids: Sequence[str | None], records: Mapping[str, Any]) -> None:
        """Takes all rows, by their ids. Gives way."""


class Owning(Protocol):
    """Links of which the records are members."""

    listeners: list[Callable[[str, str, bool], None]]
    """Called with the ids of an owner and a member, and whether they are linked now."""

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
        value_of = self._value_of
        if before is not None and after is not None and value_of(before) == value_of(after):
            return
        old = () if before is None else _each(value_of(before))
        new = () if after is None else _each(value_of(after))
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

    def __init__(self, links: Owning, row_of: Callable[[str], int | None]) -> None:
        """`row_of` gives the row of a record, or the one that it had, if it was removed last."""
        self._links = links
        self._row_of = row_of
        self.sets: dict[str, Rows] = {}
        """Those asked for last, the newest at the end."""
        links.listeners.append(self._note)

    def of(self, owner_id: str, rows_of: Callable[[Sequence[SortKey]], Rows]) -> Rows:
        rows = self.sets.pop(owner_id, None)
        if rows is None:
            rows = rows_of(self._links.members_of(owner_id))
            if len(self.sets) >= _MAX_OWNERS:
                del self.sets[next(iter(self.sets))]
        self.sets[owner_id] = rows
        return rows

    def _note(self, owner_id: str, member_id: str, is_linked: bool) -> None:
        if (rows := self.sets.get(owner_id)) is None:
            return
        if (row := self._row_of(member_id)) is None:
            del self.sets[owner_id]
        elif is_linked:
            rows.add(row)
        else:
            rows.discard(row)


class RowIndex:
    """It looks into the live table, and is told of every change of it.

    Whatever gives rows, or an order, raises `NotBuiltError` where it has to be built first and that takes too long.
    """

    def __init__(self, records: Mapping[str, Any], positions: Mapping[str, SortKey]) -> None:
        self._records = records
        self._positions = positions
        self._members: dict[Owning, _Members] = {}
        self._changes = 0
        self.tests = 0
        """Counts the texts that were searched."""
        self.clear()

    def clear(self) -> None:
        """Drops everything: it is built anew when it is asked for."""
        self._changes += 1
        self._is_built = False
        self._numbers: dict[str, int] = {}
        self.ids: list[str | None] = []
        """The id of each row's record; None of a row without one."""
        self._free: list[int] = []
        self._left = ("", -1)
        """The record that was removed last, and its row: links tell of it next."""
        self._everything = Rows()
        self._sets: dict[str, ValueSets] = {}
        self._texts: dict[str, TextColumn] = {}
        self._orders: dict[str, KeptOrder] = {}
        self._used: dict[str, float] = {}
        """When each order was last asked for, by the monotonic clock."""
        for members in self._members.values():
            members.sets.clear()

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
            sets = self._sets[field] = self._filled(lambda: ValueSets(field))
        return sets

    def with_text(self, field: str, search: TextSearch) -> Rows:
        """The rows whose texts are found, in a field in which all records have one."""
        column = self._column(field)
        if not column.knows(search):
            self.tests += len(self._records)
        return self.everything & column.rows(search)

    def _column(self, field: str) -> TextColumn:
        column = self._texts.get(field)
        if column is None:
            column = self._texts[field] = self._filled(lambda: TextColumn(field))
        return column

    def members(self, links: Owning, owner_id: str) -> Rows:
        """The rows of an owner's members."""
        self._build()
        if links not in self._members:
            self._members[links] = _Members(links, self._row_linked)
        return self._members[links].of(owner_id, self.rows_of)

    def order(self, name: str, value_of: Callable[[Any], Value]) -> KeptOrder:
        """The order with a name; `value_of` must depend on nothing but what `changed` and `touch` tell of."""
        self._build()
        self._drop_idle()
        order = self._orders.get(name)
        if order is None:
            order = self._filled(lambda: KeptOrder(value_of))
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
        return self._positions[self.id(row)]

    def id(self, row: int) -> str:
        id_ = self.ids[row]
        assert id_ is not None
        return id_

    def record(self, row: int) -> Any:
        return self._records[self.id(row)]

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
        for column in self._texts.values():
            column.changed(row, after)
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

    def _filled(self, make: Callable[[], Part]) -> Part:
        """A part of the index, made of all rows. Raises `NotBuiltError`."""

        def build() -> Part:
            made = make()
            made.fill(self.ids, self._records)
            return made

        return self._undisturbed(build)

    def _undisturbed(self, build: Callable[[], T]) -> T:
        """The result of building something while nothing changed: it gives way. Raises `NotBuiltError`."""
        if len(self._records) > BUILT_AT_ONCE and not is_sliced():
            raise NotBuiltError
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
        self._left = ("", -1)
        return row

    def _leave(self, id_: str, row: int) -> None:
        del self._numbers[id_]
        self.ids[row] = None
        self._free.append(row)
        self._everything.remove(row)
        self._left = id_, row

    def _row_linked(self, id_: str) -> int | None:
        return self._left[1] if self._left[0] == id_ else self._numbers.get(id_)

    def _drop_idle(self) -> None:
        now = monotonic()
        for name, used in tuple(self._used.items()):
            if now - used > _KEPT_FOR:
                self._drop(name)

    def _drop(self, name: str) -> None:
        del self._orders[name], self._used[name]
