"""Opaque cursors: the order of a page, and the position of one entity in it."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

from schema.errors import BadInput
from server.database.ordered import SortKey

MALFORMED = "This is not a cursor of this field: pass an `endCursor`, a `startCursor` or an edge's `cursor` unchanged."


def write_cursor(order: str, position: SortKey) -> str:
    text = json.dumps([order, *position], separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, order: str, argument: str) -> SortKey:
    """The position that a cursor names. Raises `BadInput` for a cursor of another order."""
    try:
        padding = "=" * (-len(cursor) % 4)
        parts = json.loads(urlsafe_b64decode(f"{cursor}{padding}".encode("ascii")))
    except (ValueError, binascii.Error, RecursionError):
        raise BadInput(f"{argument}: {MALFORMED}", argument) from None
    match parts:
        case [str(given), None | int() | str() as value, str(id_)] if not isinstance(value, bool):
            if given != order:
                raise BadInput(
                    f"{argument}: this cursor belongs to the order {given}, but the page has the order {order}.",
                    argument,
                )
            return value, id_
        case _:
            raise BadInput(f"{argument}: {MALFORMED}", argument)
