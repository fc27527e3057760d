"""Positions: a client shows one to any server of a database, to read nothing older than it has read or written."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

_POSITION = re.compile(r"([0-9a-f]{16})\.([0-9]{1,15})")


class Position(NamedTuple):
    """A state of one server's copy. Servers count their revisions each for itself."""

    server: str
    revision: int

    def __str__(self) -> str:
        return f"{self.server}.{self.revision}"


def new_server() -> str:
    """The name of a server in positions, another one at each start."""
    return secrets.token_hex(8)


def parse_position(text: str) -> Position:
    """Raises `ValueError`."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise ValueError("pass a position as a response has it in `X-Position`, or in `extensions.position`")
    return Position(found[1], int(found[2]))
