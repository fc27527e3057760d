"""Entities in an order, found by key: a page of them costs the page, however many there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from server.database.links import Position

E_co = TypeVar("E_co", covariant=True)


class Ordered(Generic[E_co]):
    """A view, not a copy: it is good until the next change of the read model, that is within one step of the loop."""

    __slots__ = ("_make", "order", "positions")

    def __init__(self, positions: Sequence[Position], make: Callable[[str], E_co], order: str) -> None:
        self.positions = positions
        """Sorted, and without duplicates."""
        self.order = order
        """Which order this is: positions of one are not those of another."""
        self._make = make

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[E_co]:
        return (self._make(id_) for _, id_ in self.positions)

    def __getitem__(self, index: int) -> E_co:
        return self._make(self.positions[index][1])

    def after(self, position: Position) -> int:
        """The index of the first one behind a position, which need not stand any more."""
        return bisect_right(self.positions, position)

    def before(self, position: Position) -> int:
        """The index behind the last one before a position, which need not stand any more."""
        return bisect_left(self.positions, position)
