"""The client of a request before it is authenticated: its address, its headers, its token."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.datastructures import Headers
from starlette.types import Scope

_NETWORK = 64
"""Bits of an IPv6 address that one host may have to itself, with all addresses below."""


@dataclass(frozen=True, slots=True)
class Visitor:
    headers: Mapping[str, str]
    address: str
    """As a trusted proxy tells it; `local` over a Unix socket."""
    protocol: str
    """`http`, `sse` or `websocket`."""
    method: str = "GET"
    is_secure: bool = False
    """Whether TLS brought it here, or to a trusted proxy."""
    root: str = "/"
    """The path below which this server is reached."""

    @property
    def token(self) -> str:
        """That it shows, without a look at what it is."""
        return self.headers.get("authorization", "").partition(" ")[2].strip()

    def showing(self, authorization: str) -> Visitor:
        """In place of whatever the headers hold."""
        return replace(self, headers={**self.headers, "authorization": authorization})

    @property
    def network(self) -> str:
        """Whoever has the address has all of this."""
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            return self.address
        if address.version == 4:  # noqa: PLR2004 - its name
            return self.address
        return str(ipaddress.ip_network((address, _NETWORK), strict=False))


def visitor_of(scope: Scope, protocol: str = "http") -> Visitor:
    client = scope.get("client")
    address = client[0] if client and client[0] else "local"
    return Visitor(
        Headers(scope=scope),
        address,
        protocol,
        scope.get("method", "GET"),
        scope.get("scheme") in ("https", "wss"),
        f"{scope.get('root_path', '')}/",
    )
