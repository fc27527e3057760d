"""Assumptions: the sizes of a database, written to a file, by which operations are measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schema.measures import ASSUMED
from server.contract.findings import UnreadableError
from server.database.sizes import Sizes


def sizes_in(path: Path) -> Sizes:
    """Those that the file names, and the usual ones for the rest. Raises `UnreadableError`."""
    try:
        given: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}.") from None
    if not isinstance(given, Mapping) or not all(type(size) is int and size >= 0 for size in given.values()):
        raise UnreadableError(f'{path}: write a JSON object of numbers, such as {{"runs": 5000, "workers_of_run": 3}}.')
    names = [name for name in Sizes._fields if name != "large"]
    if unknown := sorted(given.keys() - set(names)):
        raise UnreadableError(f"{path}: {unknown[0]!r} is no size. Those are {', '.join(names)}.")
    return ASSUMED._replace(**given)
