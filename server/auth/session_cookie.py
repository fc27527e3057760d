"""The session cookie of a browser: signed, so that no server needs to remember it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import NamedTuple

from schema.roles import Role
from server.auth.ended_sessions import EndedSessions
from server.auth.identity import Credential, Identity, expired, invalid
from server.auth.visitor import Visitor

HOURS = 12
"""How long a session lasts at most."""


class Session(NamedTuple):
    id: str
    begun: float
    """Seconds since the epoch, as `identity.expires`, which is when it ends by itself."""
    identity: Identity
    """Who began it, as of then."""
    seal: str
    """Of the proof that it was begun by."""

    @property
    def seconds(self) -> int:
        """How long it lasts, from its beginning."""
        return max(int((self.identity.expires or 0) - self.begun), 0)


class Sessions:
    def __init__(self, key: str) -> None:
        """Servers that have the same key know each other's cookies. It is random, and of 32 characters or more."""
        self._key = hashlib.sha256(f"merlin-graphql session 2 {key}".encode()).digest()
        self.ended = EndedSessions(HOURS * 3600)

    def begin(self, credential: Credential) -> tuple[Session, str]:
        """With its cookie's value."""
        identity, now = credential.identity, time.time()
        until = min(now + HOURS * 3600, identity.expires or float("inf"))
        known = Identity(identity.name, identity.role, until)
        session = Session(secrets.token_urlsafe(16), now, known, self.seal(credential.proof))
        payload = _text(json.dumps([session.id, now, identity.name, identity.role, until, session.seal]).encode())
        return session, f"{payload}.{self._signature(payload)}"

    def read(self, value: str) -> Session:
        """Raises `AuthenticationError`."""
        payload, _, signature = value.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise invalid("This session is not known here: log in again.")
        id_, begun, name, role, until, seal = json.loads(_bytes(payload))
        session = Session(id_, begun, Identity(name, None if role is None else Role(role), until), seal)
        self.check(session)
        return session

    def check(self, session: Session) -> None:
        """That it has not ended. Raises `AuthenticationError`."""
        if session.identity.expires is not None and session.identity.expires <= time.time():
            raise expired()
        if self.ended.holds(session.id, session.begun):
            raise invalid("This session was ended: log in again.")

    def seal(self, proof: str) -> str:
        """Tells nothing of a proof, such as a token's hash, to whoever has no key to try guesses with."""
        return _text(hmac.digest(self._key, f"proof {proof}".encode(), "sha256")[:16])

    def _signature(self, payload: str) -> str:
        return _text(hmac.digest(self._key, payload.encode(), "sha256"))


def cookie_name(visitor: Visitor) -> str:
    """A browser sends cookies to every port of a host: servers on several are told apart by the name.

    By its prefix a browser takes it over TLS only, and from no other host: RFC 6265bis, section 4.1.3.
    """
    port = visitor.headers.get("host", "").rpartition(":")[2]
    name = f"merlin_graphql_{port}" if port.isdigit() else "merlin_graphql"
    if not visitor.is_secure:
        return name
    return f"__Host-{name}" if visitor.root == "/" else f"__Secure-{name}"


def read_cookie(header: str, name: str) -> str | None:
    """RFC 6265, section 4.2.1, in one pass: the standard library's parser takes quadratic time."""
    for part in header.split(";"):
        found, separator, value = part.partition("=")
        if separator and found.strip() == name:
            return value.strip()
    return None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
