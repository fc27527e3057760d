"""Ordered views of entities: a page is found by its sort key, at a cost that does not grow with their number."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of

E_co = TypeVar("E_co", covariant=True)
Item = TypeVar("Item")
R = TypeVar("R")
Rank = TypeVar("Rank", bound=tuple[Any, ...])

Value: TypeAlias = int | str | None
SortKey: TypeAlias = tuple[Any, str]
"""An order value (None if the entity has none) and the id, which orders equal values."""


_MIN_REDUCTION = 2
"""An index is used if it leaves less than one in so many records to test."""
_TESTS_TOGETHER = 10_000
"""Conditions that are tested between two looks at the time: it takes a millisecond, or some where they are slow."""
_SORTED_TOGETHER = 5_000
"""Positions that are sorted at once, which takes some milliseconds."""
ORDER_TESTS = 2
"""An order takes as long as so many conditions on each record."""


class _Descending:
    """A sort key with the reversed order of its value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]  # a sort key, never a key of a mapping


def _rank_ascending(place: SortKey) -> tuple[bool, Any, str]:
    value, id_ = place
    return value is None, 0 if value is None else value, id_


def _rank_descending(place: SortKey) -> tuple[bool, Any, str]:
    value, id_ = place
    return value is None, 0 if value is None else _Descending(value), id_


_value = itemgetter(0)


class Selection(Protocol):
    """A filter, compiled for the records of one kind."""

    @property
    def terms(self) -> int:
        """How many conditions it has."""

    def select(self, positions: Sequence[SortKey], records: Mapping[str, Any]) -> list[SortKey]:
        """The positions whose records match."""

    def candidates(self) -> Sequence[Sequence[SortKey]] | None:
        """Parts, each in the default order, that together hold all matches; None if no index can narrow them down."""


class OrderedView(Generic[E_co]):
    """An ordered sequence of entities. A view, not a copy: valid until the read model changes, so do not keep it over
    an `await`."""

    __slots__ = ("_entities", "_rank", "_whole", "order", "positions", "records", "tests")

    def __init__(
        self,
        positions: Sequence[SortKey],
        records: Mapping[str, Any],
        entities: Mapping[str, E_co],
        order: str,
        *,
        whole: bool = False,
        rank: Callable[[SortKey], Any] | None = None,
        tests: int = 0,
    ) -> None:
        self.positions = positions
        """Sorted, without duplicates."""
        self.records = records
        """Records by id; at least those of the view."""
        self.order = order
        """The name of the order: a position is valid within its order only."""
        self.tests = tests
        """How many conditions were tested on records to make this view; an order counts as two."""
        self._entities = entities
        self._whole = whole
        """Whether the view has all records of the kind."""
        self._rank = rank

    @property
    def is_default(self) -> bool:
        """Whether this is the kind's default order, which has no null values."""
        return self._rank is None

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[E_co]:
        entities = self._entities
        return (entities[id_] for _, id_ in self.positions)

    def __getitem__(self, index: int) -> E_co:
        return self._entities[self.positions[index][1]]

    def slice(self, start: int, stop: int) -> list[E_co]:
        entities = self._entities
        return [entities[id_] for _, id_ in self.positions[start:stop]]

    def position(self, index: int) -> SortKey:
        return self.positions[index]

    def admits(self, position: SortKey) -> bool:
        """Whether it may be a position of this order."""
        value = position[0]
        if value is None:
            return not self.is_default
        first = self.positions[0][0] if self.positions else None  # also None if no entity has a value: nulls come last
        return first is None or type(value) is type(first)

    def iter_records(self) -> Iterator[Any]:
        """The records of the entities, in order."""
        records = self.records
        return (records[id_] for _, id_ in self.positions)

    def after(self, position: SortKey) -> int:
        """The index of the first entity after a position; no entity needs to be at that position any more."""
        if self._rank is None:
            return bisect_right(self.positions, position)
        return bisect_right(self.positions, self._rank(position), key=self._rank)

    def before(self, position: SortKey) -> int:
        """The index that follows the last entity before a position; no entity needs to be there any more."""
        if self._rank is None:
            return bisect_left(self.positions, position)
        return bisect_left(self.positions, self._rank(position), key=self._rank)

    def where(self, selection: Selection) -> OrderedView[E_co]:
        """The entities that match. Only for a view in the default order, which the result has, too."""
        positions = self.positions
        parts = selection.candidates()
        if parts is not None and sum(map(len, parts)) * _MIN_REDUCTION < len(positions):
            positions = parts[0] if len(parts) == 1 else sorted_in_steps(list(set().union(*parts)))
            if not self._whole:
                positions = _in_steps(lambda some: filter(self._holds, some), positions, RECORDS_PER_STEP)
        together = max(1, min(RECORDS_PER_STEP, _TESTS_TOGETHER // max(1, selection.terms)))
        found = _in_steps(lambda some: selection.select(some, self.records), positions, together)
        tests = self.tests + len(positions) * selection.terms
        return OrderedView(found, self.records, self._entities, self.order, tests=tests)

    def by(self, name: str, value_of: Callable[[Any], Value], *, descending: bool) -> OrderedView[E_co]:
        """The entities in another order: by a value of the records (nulls last in both directions), then by id."""
        records = self.records
        valued = _in_steps(
            lambda some: [(value_of(records[id_]), id_) for _, id_ in some], self.positions, RECORDS_PER_STEP
        )
        nulls = [place for place in valued if place[0] is None]
        give_way()
        rest = sorted_in_steps([place for place in valued if place[0] is not None] if nulls else valued)
        if descending:
            rest = _reversed(rest)
        direction = "DESC" if descending else "ASC"
        rank = _rank_descending if descending else _rank_ascending
        tests = self.tests + ORDER_TESTS * len(valued)
        return OrderedView(
            [*rest, *sorted_in_steps(nulls)], records, self._entities, f"{name}:{direction}", rank=rank, tests=tests
        )

    def _holds(self, place: SortKey) -> bool:
        index = bisect_left(self.positions, place)
        return index < len(self.positions) and self.positions[index] == place


def _in_steps(step: Callable[[Sequence[Item]], Iterable[R]], items: Sequence[Item], size: int) -> list[R]:
    """The results of one step after the other."""
    if len(items) <= size:
        return list(step(items))
    results: list[R] = []
    for some in portions_of(items, size):
        results += step(some)
        give_way()
    return results


def sorted_in_steps(places: list[Rank]) -> list[Rank]:
    """Sorts small parts, then merges pairs of them: `sorted` notices that a list consists of two sorted ones."""
    parts = []
    for some in portions_of(places, _SORTED_TOGETHER):
        parts.append(sorted(some))
        give_way()
    while len(parts) > 1:
        merged = []
        for pair in portions_of(parts, 2):
            merged.append(sorted(chain(*pair)))
            give_way()
        parts = merged
    return parts[0] if parts else []


def _reversed(places: list[SortKey]) -> list[SortKey]:
    """Sorted positions with their values in the reverse order, and equal values still by id."""
    if len(set(map(_value, places))) == len(places):
        return places[::-1]
    give_way()
    result: list[SortKey] = []
    for _, group in groupby(reversed(places), key=_value):
        result += [*group][::-1]
        give_way()
    return result
