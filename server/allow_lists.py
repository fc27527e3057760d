"""The lists of origins and proxies in settings: an entry that could never match is refused."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{,30})://(?P<host>[^/?#@\s*]{1,261})/?", re.IGNORECASE)
"""A name in DNS has 253 characters, a port six with its colon; what a client claims is compared and logged."""


def parts_of(text: str | None) -> list[str]:
    """The entries of a list that is separated by commas."""
    return [part for part in map(str.strip, (text or "").split(",")) if part]


def check_origin(text: str) -> None:
    """Accepts an origin as browsers send it, `null` and `*`. Raises `ValueError`, which says what to use."""
    if text in (ANY, "null"):
        return
    found = _ORIGIN.fullmatch(text)
    meant = None if found is None else _origin(found["scheme"].lower(), found["host"])
    if meant is None:
        raise ValueError(f"{text!r} is not an origin; use one such as https://dash.example.org, or {ANY} for any")
    if meant != text:
        raise ValueError(f"browsers never send {text!r}; use {meant}")


def _origin(scheme: str, netloc: str) -> str | None:
    """The origin in https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin; None if the host is invalid."""
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname, parts.port
        if host is None:
            return None
        host = f"[{ipaddress.ip_address(host)}]" if ":" in host else host.encode("idna").decode()
    except ValueError:
        return None
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def check_proxies(texts: Sequence[str], *, over_unix_socket: bool) -> None:
    """Accepts addresses and networks, or `*` alone. Raises `ValueError`, which says what to use."""
    if list(texts) == [ANY]:
        return
    if texts and over_unix_socket:
        raise ValueError(f"clients of a Unix socket have no address; use {ANY}")
    for text in texts:
        try:
            if "/" in text:
                ipaddress.ip_network(text)
            else:
                ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"{text!r} is neither an address nor a network; use {_suggestion(text)}") from None


def _suggestion(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))  # an address with a prefix length, such as 10.0.0.1/24
    except ValueError:
        return f"one such as 10.0.0.1 or 10.0.0.0/24, or {ANY} alone for any"
