"""Where two long sequences differ, found at the speed of memory: by slices, since most of them are equal."""

from __future__ import annotations

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


def middles(one: _Long, other: _Long) -> tuple[_Long, _Long]:
    """What stands in each between that with which both begin and that with which both end."""
    start = shared_start(one, other)
    end = shared_end(one, other, min(len(one), len(other)) - start)
    return one[start : len(one) - end], other[start : len(other) - end]
