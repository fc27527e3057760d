"""Ordered views of entities: a page is found by its sort key, at a cost that does not grow with their number."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of

E_co = TypeVar("E_co", covariant=True)
Item = TypeVar("Item")
R = TypeVar("R")
Rank = TypeVar("Rank", bound=tuple[Any, ...])

Value: TypeAlias = int | str | None
SortKey: TypeAlias = tuple[Any, str]
"""An order value (None if the entity has none) and the id, which orders equal values."""


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


def rank_of(*, descending: bool) -> Callable[[SortKey], Any]:
    """The function that makes positions comparable: nulls last, then by value, then by id."""
    return _rank_descending if descending else _rank_ascending


_value = itemgetter(0)


class Selection(Protocol):
    """A filter, compiled for the records of one kind."""

    @property
    def terms(self) -> int:
        """How many conditions it has."""

    def select(self, positions: Sequence[SortKey], records: Mapping[str, Any]) -> list[SortKey]:
        """The positions whose records match."""

    def rows(self, index: Any) -> Any:
        """The rows of an index among which all matches are; None if no index can narrow them down."""

    @property
    def rest(self) -> Selection | None:
        """What is still to be tested on these rows; None if all of them match."""


class Window(NamedTuple):
    """A page of a view."""

    nodes: list[Any]
    position: Callable[[int], SortKey]
    """Of the node with a number on this page."""
    has_previous: bool
    has_next: bool


class Indexable(Protocol):
    """An ordered sequence in which a position is found."""

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> list[Any]: ...

    def position(self, index: int) -> SortKey: ...

    def after(self, position: SortKey) -> int: ...

    def before(self, position: SortKey) -> int: ...


def window_of(items: Indexable, after: SortKey | None, before: SortKey | None, size: int, *, from_end: bool) -> Window:
    """Relay's algorithm (GraphQL Cursor Connections, 4.4), on positions: so many items between two of them."""
    start = 0 if after is None else items.after(after)
    stop = len(items) if before is None else items.before(before)
    stop = max(start, stop)
    if from_end:
        start = max(start, stop - size)
    else:
        stop = min(stop, start + size)
    return Window(items.slice(start, stop), lambda index: items.position(start + index), start > 0, stop < len(items))


class OrderedView(Generic[E_co]):
    """An ordered sequence of entities. A view, not a copy: valid until the read model changes, so do not keep it over
    an `await`."""

    __slots__ = ("_entities", "_positions", "_rank", "order", "records", "tests")

    def __init__(
        self,
        positions: Sequence[SortKey],
        records: Mapping[str, Any],
        entities: Mapping[str, E_co],
        order: str,
        *,
        rank: Callable[[SortKey], Any] | None = None,
        tests: int = 0,
    ) -> None:
        self._positions = positions
        self.records = records
        """Records by id; at least those of the view."""
        self.order = order
        """The name of the order: a position is valid within its order only."""
        self.tests = tests
        """How many conditions were tested on records to make this view; an order counts as two."""
        self._entities = entities
        self._rank = rank

    @property
    def positions(self) -> Sequence[SortKey]:
        """Sorted, without duplicates."""
        return self._positions

    @property
    def ids(self) -> list[str]:
        """In any order."""
        return [id_ for _, id_ in self.positions]

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

    def counted(self, field: str, values: Iterable[Hashable]) -> Counter[Any]:
        """How many of the records have each of these values in a field. Gives way."""
        del values
        counts: Counter[Any] = Counter()
        value_of = attrgetter(field)
        for some in portions_of(self.positions, RECORDS_PER_STEP):
            counts.update(value_of(self.records[id_]) for _, id_ in some)
            give_way()
        return counts

    @property
    def counting_tests(self) -> int:
        """How many records `counted` looks at."""
        return len(self)

    def window(self, after: SortKey | None, before: SortKey | None, size: int, *, from_end: bool) -> Window:
        """The page of so many entities between two positions, from the first one on, or up to the last one."""
        return window_of(self, after, before, size, from_end=from_end)


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
