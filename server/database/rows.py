"""Rows: small numbers that stand for the records of one kind, so that a set of them is a bitmap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from pyroaring import BitMap

Rows: TypeAlias = BitMap
"""A set of row numbers. One that is not the caller's own must not be changed."""

NO_ROWS = BitMap()


def union(sets: Iterable[Rows]) -> Rows:
    found = list(sets)
    match found:
        case []:
            return NO_ROWS
        case [one]:
            return one
        case _:
            return BitMap.union(*found)
