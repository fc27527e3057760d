"""Where two long sequences differ, found at the speed of memory: by slices, since most of them are equal."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

_Long = TypeVar("_Long", str, tuple[str, ...])

_LENGTHS = (16_384, 1024, 64, 8, 1)
"""Of the slices that are compared: each next one finds more exactly where the first difference is."""


def shared_start(one: _Long, other: _Long, most: int | None = None) -> int:
    """The length of what both begin with, at most `most`."""
    most = min(len(one), len(other), len(one) if most is None else most)
    at = 0
    for length in _LENGTHS:
        while at + length <= most and one[at : at + length] == other[at : at + length]:
            at += length
    return at


def shared_end(one: _Long, other: _Long, most: int) -> int:
    """The length of what both end with, at most `most`."""
    most = min(len(one), len(other), most)
    end_of_one, end_of_other = len(one), len(other)
    at = 0
    for length in _LENGTHS:
        while (
            at + length <= most
            and one[end_of_one - at - length : end_of_one - at] == other[end_of_other - at - length : end_of_other - at]
        ):
            at += length
    return at


def splice(one: tuple[str, ...], start: int, changed: tuple[str, ...], end: int) -> tuple[str, ...]:
    """Other items between the first ones, as many as `start`, and the last ones, as many as `end`."""
    if not end and start == len(one) - 1 and changed[:1] == one[-1:]:
        other = one + changed[1:]  # in half of the time
    else:
        items = list(one)
        items[start : len(one) - end] = changed
        other = tuple(items)
    note(one, other, start, end)
    return other


def shared(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[int, int]:
    """The length of what both begin with, and of what both end with: nearly as much as possible, without overlap."""
    for known_one, known_other, start, end in _LATEST:
        if known_one is one and known_other is other:
            return start, end
    start = shared_start(one, other)
    end = shared_end(one, other, min(len(one), len(other)) - start)
    note(one, other, start, end)
    return start, end


def middles(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands in each between that with which both begin and that with which both end."""
    start, end = shared(one, other)
    return one[start : len(one) - end], other[start : len(other) - end]


_LATEST: deque[tuple[tuple[str, ...], tuple[str, ...], int, int]] = deque(maxlen=2)
"""The latest differences of long tuples. That of a study, and of a worker, is asked for by everybody who follows it."""
_LONG = 1000
"""Items."""


def note(one: tuple[str, ...], other: tuple[str, ...], start: int, end: int) -> None:
    """Notes what `shared` returns for two tuples."""
    if len(one) > _LONG < len(other):
        _LATEST.append((one, other, start, end))
