"""Cookies by which a browser is known, once it has shown a token: signed, so that no server needs to remember them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

from schema.roles import Role
from server.auth.identity import Identity, expired, invalid

HOURS = 12
"""How long a session lasts at most."""


class Session(NamedTuple):
    identity: Identity
    proof: str
    """The hash of the token that began it."""


class Sessions:
    def __init__(self, key: str) -> None:
        """Servers that have the same key know each other's cookies."""
        self._key = hashlib.sha256(f"merlin-graphql session {key}".encode()).digest()

    def begin(self, session: Session) -> tuple[str, int]:
        """A cookie's value, and the seconds that it lasts."""
        now = time.time()
        until = min(now + HOURS * 3600, session.identity.expires or float("inf"))
        told = [session.identity.name, session.identity.role, until, session.proof]
        payload = _text(json.dumps(told).encode())
        return f"{payload}.{self._signature(payload)}", max(int(until - now), 0)

    def read(self, value: str) -> Session:
        """Raises `AuthenticationError`."""
        payload, _, signature = value.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise invalid("This session is not known here: log in again.")
        name, role, until, proof = json.loads(_bytes(payload))
        if until <= time.time():
            raise expired()
        return Session(Identity(name, None if role is None else Role(role), until), proof)

    def _signature(self, payload: str) -> str:
        return _text(hmac.digest(self._key, payload.encode(), "sha256"))


def cookie_name(host: str) -> str:
    """A browser sends cookies to every port of a host: servers on several are told apart by the name."""
    port = host.rpartition(":")[2]
    return f"merlin_graphql_{port}" if port.isdigit() else "merlin_graphql"


def read_cookie(header: str, name: str) -> str | None:
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
