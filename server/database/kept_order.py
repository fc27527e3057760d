"""An order of the records of one kind that is kept up to date, while it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any

from server.database.ordered import SortKey, Value
from server.database.rows import Rows
from server.database.slices import give_way
from server.database.sorted_rows import FIRST_ID, LAST_ID, RowKey, SortedRows
from server.database.steps import RECORDS_PER_STEP, portions_of


class KeptOrder:
    """By a value of the records, then by id; records without a value come last, in both directions."""

    def __init__(self, value_of: Callable[[Any], Value]) -> None:
        self._value_of = value_of
        self._values: list[Value] = []
        self._ids: list[str | None] = []
        """By row, as they were when the row was placed; None of a row that has no place."""
        self._valued = SortedRows(lambda row: (self._values[row], self._ids[row]))
        self._without = SortedRows(lambda row: (0, self._ids[row]))
        self.stale: set[int] = set()
        """Rows that may have another record, or another value, by now."""

    def fill(self, ids: Sequence[str | None], records: Mapping[str, Any]) -> None:
        """Places all rows, by their ids. Gives way."""
        value_of = self._value_of
        for some in portions_of(ids, RECORDS_PER_STEP):
            self._values += [None if id_ is None else value_of(records[id_]) for id_ in some]
            self._ids += some
            give_way()
        valued: list[int] = []
        without: list[int] = []
        for rows in portions_of(range(len(ids)), RECORDS_PER_STEP):
            valued += [row for row in rows if self._values[row] is not None]
            without += [row for row in rows if self._values[row] is None and self._ids[row] is not None]
            give_way()
        self._valued.fill(valued)
        self._without.fill(without)

    def settle(self, ids: Sequence[str | None], records: Mapping[str, Any]) -> None:
        """Places the stale rows anew."""
        missing = len(ids) - len(self._ids)
        self._ids += [None] * missing
        self._values += [None] * missing
        moved: list[tuple[int, str, Value]] = []
        for row in self.stale:
            id_ = ids[row]
            value = None if id_ is None else self._value_of(records[id_])
            if id_ == self._ids[row] and value == self._values[row]:
                continue
            if self._ids[row] is not None:
                self._rows_with(self._values[row]).remove(row)
                self._ids[row] = None
            if id_ is not None:
                moved.append((row, id_, value))
        for row, id_, value in moved:  # after all have left: one may come to where another was
            self._ids[row], self._values[row] = id_, value
            self._rows_with(value).add(row)
        self.stale.clear()

    def position(self, row: int) -> SortKey:
        id_ = self._ids[row]
        assert id_ is not None
        return self._values[row], id_

    def admits(self, position: SortKey) -> bool:
        """Whether it may be a position of this order."""
        first = self._valued.first()
        return position[0] is None or first is None or type(position[0]) is type(self._values[first])

    def walk(
        self,
        start: SortKey | None = None,
        among: Rows | None = None,
        *,
        descending: bool = False,
        exclusive: bool = False,
    ) -> Iterator[int]:
        """The rows from a position on. `among`: only those of this set. `exclusive`: without that of the position."""
        id_ = FIRST_ID if start is None else _next(start[1]) if exclusive else start[1]
        if start is not None and start[0] is None:
            return self._without.forward((0, id_), among)
        if descending:
            valued = self._groups(None if start is None else (start[0], id_), among, downwards=True)
        else:
            valued = self._valued.forward(None if start is None else (start[0], id_), among)
        return chain(valued, self._without.forward(None, among))

    def walk_back(
        self,
        stop: SortKey | None = None,
        among: Rows | None = None,
        *,
        descending: bool = False,
        inclusive: bool = False,
    ) -> Iterator[int]:
        """The rows before a position, the nearest first. `inclusive`: with that of the position."""
        id_ = FIRST_ID if stop is None else _next(stop[1]) if inclusive else stop[1]
        key = None if stop is None or stop[0] is None else (stop[0], id_)
        valued = self._groups(key, among, downwards=False) if descending else self._valued.backward(key, among)
        if key is not None:
            return valued
        return chain(self._without.backward(None if stop is None else (0, id_), among), valued)

    def between(self, low: Any, high: Any) -> Rows:
        """The rows with a value of at least `low`, and below `high`."""
        return self._valued.between((low, FIRST_ID), (high, FIRST_ID))

    def _groups(self, start: RowKey | None, among: Rows | None, *, downwards: bool) -> Iterator[int]:
        """The rows from a key on. Downwards: the largest values first, but rows of one value by id; else in reverse."""
        forward, backward = self._valued.forward, self._valued.backward
        to_next, within, edge = (backward, forward, FIRST_ID) if downwards else (forward, backward, LAST_ID)
        bound = None
        if start is not None:
            bound = (start[0], edge)
            yield from self._of_value(start[0], within(start, among))
        values, rows = self._values, to_next(bound, among)
        row = next(rows, None)
        while row is not None:
            following = next(rows, None)
            if following is not None and values[following] == values[row]:
                bound = (values[row], edge)
                yield from self._of_value(values[row], within(bound, among))
                rows = to_next(bound, among)
                following = next(rows, None)
            else:
                yield row
            row = following

    def _of_value(self, value: Value, rows: Iterator[int]) -> Iterator[int]:
        values = self._values
        return takewhile(lambda row: values[row] == value, rows)

    def _rows_with(self, value: Value) -> SortedRows:
        return self._without if value is None else self._valued


def _next(id_: str) -> str:
    """The first text after an id."""
    return f"{id_}\0"
