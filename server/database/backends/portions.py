"""Divides a scan into portions, so that other tasks of the event loop can run in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

SCAN_BATCH = 50
"""Records that are read together: 50 runs of usual size take 2 ms to decode."""
_MAX_CHARACTERS = 100_000
"""Characters that are decoded together, which takes 2 ms for lists of ids. A single record may be longer."""

Item = TypeVar("Item")


def portions(items: Iterable[Item], length: Callable[[Item], int], most: int = _MAX_CHARACTERS) -> Iterator[list[Item]]:
    """Groups items into portions short enough for one step of the loop: to decode, where `length` is in characters."""
    portion: list[Item] = []
    total = 0
    for item in items:
        own = length(item)
        if portion and total + own > most:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += own
    if portion:
        yield portion
