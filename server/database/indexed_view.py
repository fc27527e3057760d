"""Ordered views of entities whose filters and orders are answered from the index of their kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice, takewhile
from typing import Any, NamedTuple, TypeVar

from server.database.kept_order import KeptOrder
from server.database.ordered import OrderedView, Selection, SortKey, Value, Window, rank_of, sorted_in_steps
from server.database.row_index import DEFAULT, NotBuiltError, RowIndex
from server.database.rows import Rows
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, batched, portions_of

E_co = TypeVar("E_co", covariant=True)

_FEW_TESTED = 200
"""Up to so many records are tested one by one, which takes no longer than the index."""
_FEW_SORTED = 1_000
"""For up to so many matches no order is kept: they are sorted for each answer, in less than a millisecond."""
_WALK = 16
"""A kept order is walked for some of the matches where so many times the matches' square is more than the number of all
records times that of the wanted ones; else the matches are sorted."""

_SCAN = 4
"""All texts are searched where more than one in so many of the records is to be tested."""


class Order(NamedTuple):
    """An order other than the default one."""

    name: str
    value_of: Callable[[Any], Value]
    descending: bool


class IndexedView(OrderedView[E_co]):
    """All entities of a kind, or all of one owner, in the default order."""

    __slots__ = ("_index", "_own")

    def __init__(
        self,
        positions: Sequence[SortKey],
        records: Mapping[str, Any],
        entities: Mapping[str, E_co],
        order: str,
        index: RowIndex,
        own: Callable[[], Rows] | None = None,
    ) -> None:
        """`own` gives the rows of the view; without it, these are all."""
        super().__init__(positions, records, entities, order)
        self._index = index
        self._own = own

    def where(self, selection: Selection) -> OrderedView[E_co]:
        if len(self) <= _FEW_TESTED:
            return super().where(selection)
        try:
            return self._found(selection)
        except NotBuiltError:
            return super().where(selection)

    def by(self, name: str, value_of: Callable[[Any], Value], *, descending: bool) -> OrderedView[E_co]:
        if len(self) > _FEW_SORTED:
            with suppress(NotBuiltError):
                return self._view(self._rows, 0).by(name, value_of, descending=descending)
        return super().by(name, value_of, descending=descending)

    def counted(self, field: str, values: Iterable[Hashable]) -> Counter[Any]:
        if len(self) > _FEW_TESTED:
            with suppress(NotBuiltError):
                return self._view(self._rows, 0).counted(field, values)
        return super().counted(field, values)

    @property
    def counting_tests(self) -> int:
        return len(self) if len(self) <= _FEW_TESTED else 0

    @property
    def _rows(self) -> Rows:
        return self._index.everything if self._own is None else self._own()

    def _found(self, selection: Selection) -> OrderedView[E_co]:
        index, rest = self._index, selection.rest
        found = selection.rows(index)
        rows = self._rows if found is None else found if self._own is None else found & self._own()
        if rest is None:
            return self._view(rows, 0)
        if rest.scan is not None and len(rows) * _SCAN > len(index.everything):
            before = index.tests
            rows = rows & rest.scan(index)  # not in place: others have that set
            return self._view(rows, index.tests - before)
        if found is None:
            tested = super().where(selection)
            return self._view(index.rows_of(tested.positions), tested.tests)
        return self._tested(rows, rest)

    def _tested(self, rows: Rows, rest: Selection) -> OrderedView[E_co]:
        """Those of the rows whose records match."""
        index, found = self._index, Rows()
        for some in portions_of(rows.to_array(), max(1, RECORDS_PER_STEP // max(1, rest.terms // 10))):
            found |= index.rows(id_ for _, id_ in rest.select(list(map(index.position, some)), self.records))
            give_way()
        return self._view(found, len(rows) * rest.terms)

    def _view(self, rows: Rows, tests: int) -> OrderedView[E_co]:
        return RowsView(rows, self._index, self.records, self._entities, self.order, tests)


class RowsView(OrderedView[E_co]):
    """The entities of a set of rows, in the default order or another one."""

    def __init__(
        self,
        rows: Rows,
        index: RowIndex,
        records: Mapping[str, Any],
        entities: Mapping[str, E_co],
        order: str,
        tests: int,
        by: Order | None = None,
    ) -> None:
        super().__init__((), records, entities, order, tests=tests)
        self._rows = rows
        self._index = index
        self._by = by

    @property
    def is_default(self) -> bool:
        return self._by is None

    @property
    def positions(self) -> Sequence[SortKey]:
        return self._sorted.positions

    @property
    def ids(self) -> list[str]:
        return list(map(self._index.id, self._rows))

    @property
    def counting_tests(self) -> int:
        return 0

    def __len__(self) -> int:
        return len(self._rows)

    def by(self, name: str, value_of: Callable[[Any], Value], *, descending: bool) -> OrderedView[E_co]:
        by = Order(name, value_of, descending)
        order = f"{name}:{'DESC' if descending else 'ASC'}"
        return RowsView(self._rows, self._index, self.records, self._entities, order, self.tests, by)

    def counted(self, field: str, values: Iterable[Hashable]) -> Counter[Any]:
        try:
            sets = self._index.by(field)
        except NotBuiltError:
            return super().counted(field, values)
        return Counter({value: self._rows.intersection_cardinality(sets.of(value)) for value in values})

    def admits(self, position: SortKey) -> bool:
        if self._is_to_walk(1):
            return self._kept.admits(position) and not (self.is_default and position[0] is None)
        return self._sorted.admits(position)

    def window(self, after: SortKey | None, before: SortKey | None, size: int, *, from_end: bool) -> Window:
        if not self._is_to_walk(size):
            return self._sorted.window(after, before, size, from_end=from_end)
        rank = rank_of(descending=self._descends)
        first = None if after is None else rank(after)
        end = None if before is None else rank(before)
        if first is not None and end is not None and not first < end:
            before, size, from_end = None, 0, False  # an empty page after `after`
        kept = self._kept
        if from_end:
            rows = self._walk_back(before)
            found = rows if first is None else takewhile(lambda row: first < rank(kept.position(row)), rows)
        else:
            rows = self._walk(after, exclusive=True)
            found = rows if before is None else takewhile(lambda row: rank(kept.position(row)) < end, rows)
        page = list(islice(found, size + 1))
        is_more = len(page) > size
        is_before = after is not None and _is_some(self._walk_back(after, inclusive=True))
        is_after = before is not None and _is_some(self._walk(before))
        positions = [kept.position(row) for row in (reversed(page[:size]) if from_end else page[:size])]
        nodes = [self._entities[id_] for _, id_ in positions]
        if from_end:
            return Window(nodes, positions.__getitem__, is_more or is_before, is_after)
        return Window(nodes, positions.__getitem__, is_before, is_more or is_after)

    @property
    def _descends(self) -> bool:
        return self._by is not None and self._by.descending

    def _is_to_walk(self, size: int) -> bool:
        """Whether some of the matches are found by a walk along a kept order, and not by sorting all matches."""
        count = len(self)
        if count > _FEW_SORTED:
            return self._order is not None
        name = DEFAULT if self._by is None else self._by.name
        return self._index.has_order(name) and _WALK * count * count > size * len(self._index.everything)

    @property
    def _kept(self) -> KeptOrder:
        assert self._order is not None
        return self._order

    @cached_property
    def _order(self) -> KeptOrder | None:
        """None while it can't be built."""
        name, value_of = (DEFAULT, self._index.default_value) if self._by is None else self._by[:2]
        try:
            return self._index.order(name, value_of)
        except NotBuiltError:
            return None

    @cached_property
    def _among(self) -> Rows | None:
        """The rows, unless they are all."""
        return None if len(self._rows) == len(self._index.everything) else self._rows

    def _walk(self, start: SortKey | None, *, exclusive: bool = False) -> Iterator[int]:
        return self._kept.walk(start, self._among, descending=self._descends, exclusive=exclusive)

    def _walk_back(self, stop: SortKey | None, *, inclusive: bool = False) -> Iterator[int]:
        return self._kept.walk_back(stop, self._among, descending=self._descends, inclusive=inclusive)

    @cached_property
    def _sorted(self) -> OrderedView[E_co]:
        """The same entities, each with its position."""
        if len(self) > _FEW_SORTED and self._order is not None:
            positions: list[SortKey] = []
            for some in batched(self._walk(None), RECORDS_PER_STEP):
                positions += map(self._kept.position, some)
                give_way()
            rank = None if self.is_default else rank_of(descending=self._descends)
            return OrderedView(positions, self.records, self._entities, self.order, rank=rank, tests=self.tests)
        default = sorted_in_steps(list(map(self._index.position, self._rows)))
        view = OrderedView(default, self.records, self._entities, self.order, tests=self.tests)
        if self._by is None:
            return view
        return view.by(self._by.name, self._by.value_of, descending=self._by.descending)


def _is_some(rows: Iterator[int]) -> bool:
    return next(rows, None) is not None
