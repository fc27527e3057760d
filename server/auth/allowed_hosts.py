"""The `Host` names that this server answers to: against DNS rebinding.

In DNS rebinding, the host name of a foreign page is made to resolve to this server, so that the browser sees one
origin. Only `Host` gives it away: the browser sends the name that the page was loaded from.
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
_CACHE_SIZE = 1_024
"""Pairs of a `Host` value and the address that it was sent to."""


class AllowedHosts:
    """The check of `Host`. Loopback names and the address that the connection came to are always allowed."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        """`allowed`: names as `name_of` writes them, or `ANY`."""
        self._allowed = frozenset({"localhost", *allowed})
        self._knows = lru_cache(_CACHE_SIZE)(self._is_own)

    def check(self, headers: Sequence[tuple[bytes, bytes]], address: str | None) -> None:
        """`address`: the local one of the connection; None for a Unix socket. Raises `RequestError`."""
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            raise RequestError("Send exactly one Host header: RFC 9112, section 3.2.")
        if len(hosts[0]) > _MAX_LENGTH or not self._knows(hosts[0], address):
            raise RequestError("This server does not answer to this Host name: see the setting --allow-hosts.", 421)

    def _is_own(self, host: bytes, address: str | None) -> bool:
        name = name_of(host.decode("latin-1").strip())
        if name is None:
            return False
        return ANY in self._allowed or name in self._allowed or name == address or _is_loopback(name)


def name_of(host: str) -> str | None:
    """The canonical host name of a `Host` value, without the port; None if the value is not valid."""
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
