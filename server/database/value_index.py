"""An index of records by one of their values, in the kind's default order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from server.database.links import discard, insert
from server.database.models import Model
from server.database.ordered import SortKey
from server.database.steps import RECORDS_PER_STEP, portions_of

Record = TypeVar("Record", bound=Model)
V = TypeVar("V", bound=Hashable)


class ValueIndex(Generic[V, Record]):
    """The positions of records by a value. `changed` must be called after every change of the table."""

    def __init__(self, value_of: Callable[[Record], V]) -> None:
        self._value_of = value_of
        self._positions: dict[V, list[SortKey]] = {}

    def of(self, value: V) -> Sequence[SortKey]:
        """The positions of the records with a value; callers must not change the list."""
        return self._positions.get(value, ())

    def counts(self) -> Counter[V]:
        return Counter({value: len(positions) for value, positions in self._positions.items()})

    def rebuild(self, order: Sequence[SortKey], records: Mapping[str, Record]) -> Iterator[None]:
        """Step by step."""
        self._positions = {}
        for positions in portions_of(order, RECORDS_PER_STEP):
            for position in positions:
                self._positions.setdefault(self._value_of(records[position[1]]), []).append(position)
            yield

    def changed(self, before: Record | None, after: Record | None, old: SortKey | None, new: SortKey | None) -> None:
        """`old` and `new` are the positions of the record before and after."""
        if before is not None and after is not None and old == new and self._value_of(before) is self._value_of(after):
            return
        if before is not None and old is not None:
            group = self._positions[value := self._value_of(before)]
            discard(group, old)
            if not group:
                del self._positions[value]
        if after is not None and new is not None:
            insert(self._positions.setdefault(self._value_of(after), []), new)
