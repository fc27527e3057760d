"""The client of a request before it is authenticated: its address, its headers, its token."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.datastructures import Headers
from starlette.types import Scope

_NETWORK = 64
"""The prefix length of an IPv6 network that one host may have to itself."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """What a request shows of its client."""

    headers: Mapping[str, str]
    address: str
    """The client's IP address, by a trusted proxy's header if there is one; `local` over a Unix socket."""
    protocol: str
    """`http`, `sse`, `multipart` or `websocket`."""
    method: str = "GET"
    is_secure: bool = False
    """Whether the client used TLS, to this server or to a trusted proxy."""
    root: str = "/"
    """The path under which this server is reached."""

    @property
    def token(self) -> str:
        """The token of the `Authorization` header, unchecked; empty if there is none."""
        return self.headers.get("authorization", "").partition(" ")[2].strip()

    def with_authorization(self, authorization: str) -> Visitor:
        """The same visitor with this `Authorization` header."""
        return replace(self, headers={**self.headers, "authorization": authorization})

    @property
    def network(self) -> str:
        """The address, or for IPv6 the network around it: one host has all of that."""
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            return self.address
        if address.version == 4:  # noqa: PLR2004 - the version's name
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
