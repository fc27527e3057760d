"""The id of the request that is being answered: as its client or a proxy sent it, or a new one."""

from __future__ import annotations

import itertools
import re
import secrets
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that is being answered; `-` outside of requests."""

_PROCESS = secrets.token_hex(4)
_NUMBERS = itertools.count(secrets.randbits(24))
"""Ids have to be unique, not secret."""
_GIVEN_ID = re.compile(rb"[\w.:/+=@-]{1,128}")


def request_id_of(given: bytes | None) -> str:
    """The id that a client or a proxy sent, if it can be logged and sent back; else a new one."""
    if given is not None and _GIVEN_ID.fullmatch(given):
        return given.decode()
    return f"{_PROCESS}{next(_NUMBERS):08x}"
