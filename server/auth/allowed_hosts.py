"""The `Host` names that this server answers to: against DNS rebinding.

Such a page is of the same origin as the server it reaches, by `Host` alone it can be told: a browser sends what stands
in the address that the page was loaded from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from ipaddress import ip_address

from server.errors import RequestError

ANY = "*"
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,254})(?::[0-9]{0,5})?", re.IGNORECASE)
_MAX_LENGTH = 300
"""Bytes."""
_REMEMBERED = 1_024
"""Values of `Host` with the addresses that they were sent to."""


class AllowedHosts:
    """Always let in are loopback, and the address that a connection came to."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        """`allowed`: names as `name_of` writes them, or `ANY`."""
        self._allowed = frozenset({"localhost", *allowed})
        self._knows = lru_cache(_REMEMBERED)(self._is_own)

    def check(self, headers: Sequence[tuple[bytes, bytes]], address: str | None) -> None:
        """`address`: which the connection came to; None by a Unix socket. Raises `RequestError`."""
        given = [value for name, value in headers if name == b"host"]
        if len(given) != 1:
            raise RequestError("Send one header Host: RFC 9112, section 3.2.")
        if len(given[0]) > _MAX_LENGTH or not self._knows(given[0], address):
            raise RequestError("This server has no such name: see the setting --allow-hosts.", 421)

    def _is_own(self, host: bytes, address: str | None) -> bool:
        name = name_of(host.decode("latin-1").strip())
        if name is None:
            return False
        return ANY in self._allowed or name in self._allowed or name == address or _is_loopback(name)


def name_of(host: str) -> str | None:
    """Without a port, in the one way to write it; None where it is none."""
    found = _HOST.fullmatch(host)
    if found is None:
        return None
    name = found[1].lower().removesuffix(".")
    if not name.startswith("["):
        return name or None
    try:
        return str(ip_address(name[1:-1]))
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
