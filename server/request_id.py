"""The id of the request that is being answered: as its client or a proxy sent it, or a new one."""

from __future__ import annotations

import itertools
import re
import secrets
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""Of the request that is being answered."""

_PROCESS = secrets.token_hex(4)
_NUMBERS = itertools.count(secrets.randbits(24))
"""Ids need to be told apart, not to be guarded."""
_GIVEN_ID = re.compile(rb"[\w.:/+=@-]{1,128}")


def request_id_of(given: bytes | None) -> str:
    """As a client or a proxy gave it, where it can be logged and sent back; else a new one."""
    if given is not None and _GIVEN_ID.fullmatch(given):
        return given.decode()
    return f"{_PROCESS}{next(_NUMBERS):08x}"
