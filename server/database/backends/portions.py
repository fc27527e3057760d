"""Divides a scan into portions, so that other tasks have their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

SCAN_BATCH = 50
"""Records that are read together: runs of a usual size take 2 ms to decode."""
_MAX_CHARACTERS = 100_000
"""That are decoded together: lists of ids take 2 ms. A single record may be longer."""

Item = TypeVar("Item")


def portions(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Each as long as may be decoded in one step of the event loop. `length` is in characters."""
    portion: list[Item] = []
    total = 0
    for item in items:
        own = length(item)
        if portion and total + own > _MAX_CHARACTERS:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += own
    if portion:
        yield portion
