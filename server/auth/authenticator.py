"""Knows clients by what they send: a token, or the cookie that a browser was given for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from schema.roles import Role
from server.auth.identity import AuthenticationError, Identity, expired, invalid, missing
from server.auth.lease import Lease
from server.auth.sessions import Session, Sessions, cookie_name, read_cookie
from server.auth.token_file import TokenFile, hash_of
from server.database.pulse import Pulse

OWNER = "owner"
"""The name of whoever has the token that was made at the start."""
ANYBODY = Identity("anybody", Role.ADMIN)
_OWNER = Identity(OWNER, Role.ADMIN)
_LONGEST_TOKEN = 8_192
"""Characters."""
KEY = "key:"
"""What a proof begins with that is a key of an identity provider, by its thumbprint; others are hashes of tokens."""
_LOOK_EVERY = 0.4
"""Seconds between two looks whether what clients are known by has changed."""


class ProviderError(Exception):
    """An identity provider's keys can't be had, in one line."""


class Provider(Protocol):
    """`identity_provider.IdentityProvider`, where its library is installed."""

    async def open(self) -> None:
        """Raises `ProviderError`."""

    async def follow(self) -> None: ...

    def known(self, token: str) -> Session | None: ...

    def identify(self, token: str) -> Session:
        """Raises `AuthenticationError`."""

    def still(self, session: Session) -> Identity:
        """Who it is now. Raises `AuthenticationError`."""

    @property
    def version(self) -> int:
        """Another one whenever `still` may answer otherwise."""


class Authenticator:
    def __init__(
        self,
        sessions: Sessions,
        *,
        own_token_hash: str | None = None,
        tokens: TokenFile | None = None,
        provider: Provider | None = None,
        is_open: bool = False,
        most: Role = Role.ADMIN,
    ) -> None:
        """`is_open`: everybody is let in. `most`: what nobody has more than."""
        self.sessions = sessions
        self._own_token_hash = own_token_hash
        self._tokens = tokens
        self._provider = provider
        self._is_open = is_open
        self._most = most
        self._changes = Pulse()

    async def open(self) -> None:
        """Raises `ProviderError`."""
        if self._provider is not None:
            await self._provider.open()

    async def follow(self) -> None:
        """Keeps up with what clients are known by, and tells leases when it has changed, until cancelled."""
        await asyncio.gather(self._watch(), *([] if self._provider is None else [self._provider.follow()]))

    async def _watch(self) -> None:
        seen = self._versions()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._tokens is not None:
                self._tokens.look()
            now = self._versions()
            if now != seen:
                seen = now
                self._changes.beat()

    def identify(self, headers: Mapping[str, str]) -> Lease:
        """By the headers of a request. Raises `AuthenticationError`."""
        if self._is_open:
            return self._open_lease()
        authorization = headers.get("authorization")
        if authorization is not None:
            return self.by_authorization(authorization)
        cookie = headers.get("cookie")
        if cookie is not None and (value := read_cookie(cookie, cookie_name(headers.get("host", "")))):
            session = self.sessions.read(value)
            return self._lease(lambda: self._of_cookie(session))
        raise missing()

    def at_once(self, authorization: bytes | None) -> Identity | None:
        """As `identify` does by that header alone, where nothing must be waited for; else None."""
        if self._is_open:
            return ANYBODY.capped(self._most)
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        token = authorization[7:].decode("latin-1").strip()
        try:
            identity = self._by_hash(hash_of(token))
            if identity is None and self._provider is not None and (known := self._provider.known(token)) is not None:
                identity = self._provider.still(known)
        except AuthenticationError:
            return None
        return None if identity is None else identity.capped(self._most)

    def by_authorization(self, value: str) -> Lease:
        """`Bearer TOKEN`. Raises `AuthenticationError`."""
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise invalid("Send the token as `Authorization: Bearer TOKEN`.")
        return self.by_token(token.strip())

    def by_token(self, token: str) -> Lease:
        """Raises `AuthenticationError`."""
        if self._is_open:
            return self._open_lease()
        session = self._session_of(token)
        return self._lease(lambda: self._of_proof(session))

    def log_in(self, token: str) -> tuple[str, int]:
        """A cookie for a token, and the seconds that it lasts. Raises `AuthenticationError`."""
        return self.sessions.begin(self._session_of(token))

    def _session_of(self, token: str) -> Session:
        if not token:
            raise missing()
        if len(token) > _LONGEST_TOKEN:
            raise invalid()
        hash_ = hash_of(token)
        identity = self._by_hash(hash_)
        if identity is not None:
            return Session(identity, hash_)
        if self._provider is not None:
            return self._provider.known(token) or self._provider.identify(token)
        raise invalid()

    def _by_hash(self, hash_: str) -> Identity | None:
        """Of all that is kept as hashes, a look-up tells no more of a token than its hash does."""
        if hash_ == self._own_token_hash:
            return _OWNER
        return None if self._tokens is None else self._tokens.identify(hash_)

    def _open_lease(self) -> Lease:
        return self._lease(lambda: ANYBODY)

    def _lease(self, ask: Callable[[], Identity]) -> Lease:
        """Raises `AuthenticationError`."""
        lease = Lease(lambda: ask().capped(self._most), self._changes)
        lease.identity()
        return lease

    def _of_cookie(self, session: Session) -> Identity:
        """It ends by itself, and with what began it; what that may do now is what counts."""
        standing, until = self._of_proof(session), session.identity.expires
        if until is None:
            return standing
        if until <= time.time():
            raise expired()
        return Identity(standing.name, standing.role, min(until, standing.expires or until))

    def _of_proof(self, session: Session) -> Identity:
        if self._provider is not None and session.proof.startswith(KEY):
            return self._provider.still(session)
        standing = self._by_hash(session.proof)
        if standing is None:
            raise invalid("What you logged in by does not hold any more: log in again.")
        return standing

    def _versions(self) -> tuple[int, ...]:
        return tuple(it.version for it in (self._tokens, self._provider) if it is not None)


__all__ = ["ANYBODY", "OWNER", "AuthenticationError", "Authenticator"]
