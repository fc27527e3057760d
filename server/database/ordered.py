"""Entities in an order, found by key: a page of them costs the page, however many there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

E_co = TypeVar("E_co", covariant=True)

Value: TypeAlias = int | str | None
Place: TypeAlias = tuple[Any, str]
"""An order value, None where the entity has none, and the id that tells ties apart."""


class _Descending:
    """Compares the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]  # a sort key, never a key of a mapping


def _rank_ascending(place: Place) -> tuple[bool, Any, str]:
    value, id_ = place
    return value is None, 0 if value is None else value, id_


def _rank_descending(place: Place) -> tuple[bool, Any, str]:
    value, id_ = place
    return value is None, 0 if value is None else _Descending(value), id_


def _value(place: Place) -> Any:
    return place[0]


class Ordered(Generic[E_co]):
    """A view, not a copy: it is good until the next change of the read model, that is within one step of the loop."""

    __slots__ = ("_make", "_rank", "order", "positions")

    def __init__(
        self,
        positions: Sequence[Place],
        make: Callable[[str], E_co],
        order: str,
        rank: Callable[[Place], Any] | None = None,
    ) -> None:
        self.positions = positions
        """In their order, and without duplicates."""
        self.order = order
        """Which order this is: positions of one are not those of another."""
        self._make = make
        self._rank = rank

    @property
    def is_default(self) -> bool:
        """Whether positions are those of the kind's default order, which knows no null."""
        return self._rank is None

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[E_co]:
        return (self._make(id_) for _, id_ in self.positions)

    def __getitem__(self, index: int) -> E_co:
        return self._make(self.positions[index][1])

    def after(self, position: Place) -> int:
        """The index of the first one behind a position, which need not stand any more."""
        if self._rank is None:
            return bisect_right(self.positions, position)
        return bisect_right(self.positions, self._rank(position), key=self._rank)

    def before(self, position: Place) -> int:
        """The index behind the last one before a position, which need not stand any more."""
        if self._rank is None:
            return bisect_left(self.positions, position)
        return bisect_left(self.positions, self._rank(position), key=self._rank)

    def where(self, matches: Callable[[E_co], bool]) -> Ordered[E_co]:
        """Those that match, in the same order."""
        kept = [position for position in self.positions if matches(self._make(position[1]))]
        return Ordered(kept, self._make, self.order, self._rank)

    def by(self, name: str, value_of: Callable[[E_co], Value], *, descending: bool) -> Ordered[E_co]:
        """In another order: by a value, nulls last in both directions, then by id."""
        valued = [(value_of(entity), position[1]) for position, entity in zip(self.positions, self, strict=True)]
        valued.sort(key=lambda place: place[1])
        nulls = [place for place in valued if place[0] is None]
        rest = [place for place in valued if place[0] is not None]
        rest.sort(key=_value, reverse=descending)  # stable: ties stay in the order of their ids
        direction = "DESC" if descending else "ASC"
        rank = _rank_descending if descending else _rank_ascending
        return Ordered([*rest, *nulls], self._make, f"{name}:{direction}", rank)
