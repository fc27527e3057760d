"""The lists of origins and proxies in settings: an entry that could never match is refused."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{,30})://(?P<place>[^/?#@\s*]{1,261})/?", re.IGNORECASE)
"""A name in DNS has 253 characters, a port six with its colon; what a client claims is compared and logged."""


def parts_of(text: str | None) -> list[str]:
    """Of a list with commas."""
    return [part for part in map(str.strip, (text or "").split(",")) if part]


def check_origin(text: str) -> None:
    """An origin as browsers send it, `null`, or any. Raises `ValueError`, which says what to use."""
    if text in (ANY, "null"):
        return
    found = _ORIGIN.fullmatch(text)
    meant = None if found is None else _origin(found["scheme"].lower(), found["place"])
    if meant is None:
        raise ValueError(f"{text!r} is no origin; use one such as https://dash.example.org, or {ANY} for any")
    if meant != text:
        raise ValueError(f"browsers never send {text!r}; use {meant}")


def _origin(scheme: str, place: str) -> str | None:
    """https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin; None where the place is none."""
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
        if host is None:
            return None
        host = f"[{ipaddress.ip_address(host)}]" if ":" in host else host.encode("idna").decode()
    except ValueError:
        return None
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def check_proxies(texts: Sequence[str], *, over_unix_socket: bool) -> None:
    """Addresses or networks, or any alone. Raises `ValueError`, which says what to use."""
    if list(texts) == [ANY]:
        return
    if texts and over_unix_socket:
        raise ValueError(f"over a Unix socket nobody has an address; use {ANY}")
    for text in texts:
        try:
            if "/" in text:
                ipaddress.ip_network(text)
            else:
                ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f"{text!r} is no address and no network; use {_network_around(text)}") from None


def _network_around(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))  # of an address with the length of a prefix
    except ValueError:
        return f"some such as 10.0.0.1 or 10.0.0.0/24, or {ANY} alone for any"
