"""Rows in the order of a key, in blocks: a change costs little, and blocks without a wanted row are passed over."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

from server.database.rows import NO_ROWS, Rows, union
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of

RowKey: TypeAlias = tuple[Any, Any]
"""A value and an id; no two rows have the same."""

_BLOCK = 1000
"""Rows of a block, about: at most twice as many."""
_SAMPLES = 8
"""Rows of each block that are looked at to find where it should begin."""


class _AfterAll:
    """Comes after every id."""

    def __lt__(self, _other: object) -> bool:
        return False

    def __gt__(self, _other: object) -> bool:
        return True


FIRST_ID = ""
LAST_ID: Any = _AfterAll()


class SortedRows:
    """The key of a row must not change while it is in here."""

    def __init__(self, key: Callable[[int], RowKey]) -> None:
        self._key = key
        self._blocks: list[list[int]] = []
        self._sets: list[Rows] = []
        """The rows of each block."""
        self._firsts: list[RowKey] = []
        """The key of each block's first row."""

    def fill(self, rows: Sequence[int]) -> None:
        """Takes the rows, in any order, if there are none yet. Gives way."""
        key = self._key
        sample = sorted(map(key, rows[:: max(1, _BLOCK // _SAMPLES)]))
        bounds = sample[_SAMPLES::_SAMPLES]
        blocks: list[list[int]] = [[] for _ in range(len(bounds) + 1)]
        for some in portions_of(rows, RECORDS_PER_STEP):
            for row in some:
                blocks[bisect_right(bounds, key(row))].append(row)
            give_way()
        for block in blocks:
            block.sort(key=key)
            for part in portions_of(block, _BLOCK):
                self._insert_block(len(self._blocks), list(part))
            give_way()

    def add(self, row: int) -> None:
        key = self._key(row)
        number = max(0, bisect_right(self._firsts, key) - 1)
        if not self._blocks:
            self._insert_block(0, [row])
            return
        block = self._blocks[number]
        block.insert(bisect_left(block, key, key=self._key), row)
        self._sets[number].add(row)
        self._firsts[number] = self._key(block[0])
        if len(block) > 2 * _BLOCK:
            self._remove_block(number)
            for part in (block[_BLOCK:], block[:_BLOCK]):
                self._insert_block(number, part)

    def remove(self, row: int) -> None:
        """Removes a row that is in here."""
        key = self._key(row)
        number = bisect_right(self._firsts, key) - 1
        block = self._blocks[number]
        del block[bisect_left(block, key, key=self._key)]
        self._sets[number].remove(row)
        if block:
            self._firsts[number] = self._key(block[0])
        else:
            self._remove_block(number)

    def first(self) -> int | None:
        return self._blocks[0][0] if self._blocks else None

    def forward(self, start: RowKey | None, among: Rows | None) -> Iterator[int]:
        """The rows from a key on, that of the key included; all without one. `among`: only those in this set."""
        number = index = 0
        if start is not None and self._blocks:
            number = max(0, bisect_right(self._firsts, start) - 1)
            index = bisect_left(self._blocks[number], start, key=self._key)
        parts = self._parts(range(number + 1, len(self._blocks)), among)
        first = self._blocks[number][index:] if self._blocks else []
        return self._chosen(chain((first,), parts), among)

    def backward(self, stop: RowKey | None, among: Rows | None) -> Iterator[int]:
        """The rows before a key, that of the key left out, the last first; all without one."""
        number, index = len(self._blocks), 0
        if stop is not None and self._blocks:
            number = max(0, bisect_right(self._firsts, stop) - 1)
            index = bisect_left(self._blocks[number], stop, key=self._key)
        parts = self._parts(range(number - 1, -1, -1), among)
        last = self._blocks[number][:index] if number < len(self._blocks) else []
        return self._chosen((part[::-1] for part in chain((last,), parts)), among)

    def between(self, start: RowKey, stop: RowKey) -> Rows:
        """The set of the rows from one key on, and before another."""
        if not self._blocks or not start < stop:
            return NO_ROWS
        first = max(0, bisect_right(self._firsts, start) - 1)
        last = max(0, bisect_right(self._firsts, stop) - 1)
        begin = bisect_left(self._blocks[first], start, key=self._key)
        end = bisect_left(self._blocks[last], stop, key=self._key)
        if first == last:
            return Rows(self._blocks[first][begin:end])
        ends = (Rows(self._blocks[first][begin:]), Rows(self._blocks[last][:end]))
        return union([*ends, *self._sets[first + 1 : last]])

    def _parts(self, numbers: range, among: Rows | None) -> Iterator[list[int]]:
        """The blocks of which something is wanted."""
        for number in numbers:
            if among is None or self._sets[number].intersect(among):
                yield self._blocks[number]

    @staticmethod
    def _chosen(parts: Iterator[list[int]], among: Rows | None) -> Iterator[int]:
        if among is None:
            return chain.from_iterable(parts)
        return chain.from_iterable(filter(among.__contains__, part) for part in parts)

    def _insert_block(self, number: int, block: list[int]) -> None:
        self._blocks.insert(number, block)
        self._sets.insert(number, Rows(block))
        self._firsts.insert(number, self._key(block[0]))

    def _remove_block(self, number: int) -> None:
        del self._blocks[number], self._sets[number], self._firsts[number]
