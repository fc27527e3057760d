"""The session cookie of a browser: signed, so that servers need not store sessions."""

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
    """The content of a session cookie."""

    id: str
    begun: float
    """Seconds since the epoch, like `identity.expires`, when the session ends by itself."""
    identity: Identity
    """The client that began the session, with its role at that time."""
    seal: str
    """The seal (see `Sessions.seal`) of the proof that the session was begun with."""

    @property
    def seconds(self) -> int:
        """The duration, from its beginning."""
        return max(int((self.identity.expires or 0) - self.begun), 0)


class Sessions:
    """Writes and reads session cookies."""

    def __init__(self, key: str) -> None:
        """`key`: random, 32 characters or more. Servers with the same key accept each other's cookies."""
        self._key = hashlib.sha256(f"merlin-graphql session 2 {key}".encode()).digest()
        self.ended = EndedSessions(HOURS * 3600)

    def begin(self, credential: Credential) -> tuple[Session, str]:
        """Begins a session and returns it with the value of its cookie."""
        identity, now = credential.identity, time.time()
        until = min(now + HOURS * 3600, identity.expires or float("inf"))
        known = Identity(identity.name, identity.role, until)
        session = Session(secrets.token_urlsafe(16), now, known, self.seal(credential.proof))
        payload = _text(json.dumps([session.id, now, identity.name, identity.role, until, session.seal]).encode())
        return session, f"{payload}.{self._signature(payload)}"

    def read(self, value: str) -> Session:
        """The session of a cookie's value. Raises `AuthenticationError`."""
        payload, _, signature = value.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise invalid("This session is not known here: log in again.")
        id_, begun, name, role, until, seal = json.loads(_bytes(payload))
        session = Session(id_, begun, Identity(name, None if role is None else Role(role), until), seal)
        self.check(session)
        return session

    def check(self, session: Session) -> None:
        """Checks that a session has not ended. Raises `AuthenticationError`."""
        if session.identity.expires is not None and session.identity.expires <= time.time():
            raise expired()
        if self.ended.holds(session.id, session.begun):
            raise invalid("This session was ended: log in again.")

    def seal(self, proof: str) -> str:
        """A keyed hash of a proof: without the key, nobody can test a guess against it."""
        return _text(hmac.digest(self._key, f"proof {proof}".encode(), "sha256")[:16])

    def _signature(self, payload: str) -> str:
        return _text(hmac.digest(self._key, payload.encode(), "sha256"))


def cookie_name(visitor: Visitor) -> str:
    """The cookie's name. It has the port, since browsers send a cookie to every port of a host.

    With the prefix, browsers accept the cookie over TLS only, and from this host only: RFC 6265bis, section 4.1.3.
    """
    port = visitor.headers.get("host", "").rpartition(":")[2]
    name = f"merlin_graphql_{port}" if port.isdigit() else "merlin_graphql"
    if not visitor.is_secure:
        return name
    return f"__Host-{name}" if visitor.root == "/" else f"__Secure-{name}"


def read_cookie(header: str, name: str) -> str | None:
    """The value of a cookie in a `Cookie` header (RFC 6265, section 4.2.1); None if it is not there.

    In one pass: the standard library's parser takes quadratic time.
    """
    for part in header.split(";"):
        found, separator, value = part.partition("=")
        if separator and found.strip() == name:
            return value.strip()
    return None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
