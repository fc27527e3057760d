"""Finds the identity of a client by its token, or by its session cookie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from schema.roles import Role
from server.auth.identity import AuthenticationError, Credential, Identity, invalid, missing
from server.auth.lease import Lease
from server.auth.origins import is_own
from server.auth.session_cookie import Session, Sessions, cookie_name, read_cookie
from server.auth.token_file import TokenFile, hash_of
from server.auth.visitor import Visitor
from server.database.backends.base import ResultsBackend
from server.database.notifier import Notifier
from server.errors import UsageError

OWNER = "owner"
"""The name of whoever has the token that was made at the start."""
ANYBODY = Identity("anybody", Role.ADMIN)
_OWNER = Identity(OWNER, Role.ADMIN)
_MAX_TOKEN_LENGTH = 8_192
"""Characters."""
KEY = "key:"
"""What a proof begins with that is a key of an identity provider, by its thumbprint; others are hashes of tokens."""
_LOOK_EVERY = 0.4
"""Seconds between two looks whether what clients are known by has changed."""


class ProviderError(UsageError):
    """The keys of an identity provider are not available, in one line."""


class Provider(Protocol):
    """`identity_provider.IdentityProvider`, where its library is installed."""

    async def open(self) -> None:
        """Raises `ProviderError`."""

    async def follow(self) -> None: ...

    def known(self, token: str) -> Credential | None: ...

    def identify(self, token: str) -> Credential:
        """Raises `AuthenticationError`."""

    def still(self, credential: Credential) -> Identity:
        """Who it is now. Raises `AuthenticationError`."""

    @property
    def proofs(self) -> Iterable[str]:
        """Of all credentials that may hold now."""

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
        max_role: Role = Role.ADMIN,
    ) -> None:
        """`is_open`: everybody is let in. `most`: what nobody has more than."""
        self.sessions = sessions
        self._own_token_hash = own_token_hash
        self._tokens = tokens
        self._provider = provider
        self.is_open = is_open
        self._max_role = max_role
        self._changes = Notifier()
        self._seals: tuple[tuple[int, ...], Mapping[str, str]] = (), {}

    async def open(self) -> None:
        """Raises `ProviderError`."""
        if self._provider is not None:
            await self._provider.open()

    async def follow(self, backend: ResultsBackend) -> None:
        """Keeps up with what clients are known by, and tells leases when it has changed, until cancelled.

        `backend`: where the servers of a database tell each other of sessions that were ended.
        """
        if self.is_open:
            return
        works = [self._watch(), self.sessions.ended.share(backend)]
        if self._provider is not None:
            works.append(self._provider.follow())
        await asyncio.gather(*works)

    async def _watch(self) -> None:
        seen = self._versions()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._tokens is not None:
                self._tokens.look()
            now = self._versions()
            if now != seen:
                seen = now
                self._changes.notify()

    def identify(self, visitor: Visitor) -> Lease:
        """By a token, or by a session. Raises `AuthenticationError`.

        A session is one of this server's pages: whoever is called from elsewhere shows a token.
        """
        if self.is_open:
            return self._lease(visitor, lambda: ANYBODY)
        if (authorization := visitor.headers.get("authorization")) is not None:
            credential = self._credential_of(_bearer_in(authorization))
            return self._lease(visitor, lambda: self._of_credential(credential))
        if (value := _cookie_in(visitor)) is not None and is_own(visitor.headers):
            session = self.sessions.read(value)
            return self._lease(visitor, lambda: self._of_session(session))
        raise missing()

    def identify_sync(self, token: str) -> Identity | None:
        """Whom a token stands for, where that is known already; else `identify` tells more."""
        if self.is_open:
            return ANYBODY.limited_to(self._max_role)
        try:
            identity = self._by_hash(hash_of(token))
            if identity is None and self._provider is not None and (known := self._provider.known(token)) is not None:
                identity = self._provider.still(known)
        except AuthenticationError:
            return None
        return None if identity is None else identity.limited_to(self._max_role)

    def log_in(self, token: str) -> tuple[Session, str]:
        """A session, and its cookie's value. Raises `AuthenticationError`."""
        return self.sessions.begin(self._credential_of(token))

    def log_out(self, visitor: Visitor) -> Session | None:
        """Ends the session of a browser; None where it has none."""
        value = _cookie_in(visitor)
        try:
            session = None if value is None else self.sessions.read(value)
        except AuthenticationError:
            return None
        if session is not None:
            self.sessions.ended.end(session.id)
        return session

    def _credential_of(self, token: str) -> Credential:
        if not token:
            raise missing()
        if len(token) > _MAX_TOKEN_LENGTH:
            raise invalid()
        hash_ = hash_of(token)
        identity = self._by_hash(hash_)
        if identity is not None:
            return Credential(identity, hash_)
        if self._provider is not None:
            return self._provider.known(token) or self._provider.identify(token)
        raise invalid()

    def _by_hash(self, hash_: str) -> Identity | None:
        """Of all that is kept as hashes, a look-up tells no more of a token than its hash does."""
        if hash_ == self._own_token_hash:
            return _OWNER
        return None if self._tokens is None else self._tokens.identify(hash_)

    def _lease(self, visitor: Visitor, ask: Callable[[], Identity]) -> Lease:
        """Raises `AuthenticationError`."""
        lease = Lease(visitor, lambda: ask().limited_to(self._max_role), self._changes)
        lease.identity()
        return lease

    def _of_session(self, session: Session) -> Identity:
        """It ends by itself, and with what began it; what that may do now is what counts."""
        self.sessions.check(session)
        standing = self._of_credential(Credential(session.identity, self._unsealed(session.seal)))
        until = min(filter(None, (session.identity.expires, standing.expires)))
        return Identity(standing.name, standing.role, until)

    def _of_credential(self, credential: Credential) -> Identity:
        if self._provider is not None and credential.proof.startswith(KEY):
            return self._provider.still(credential)
        standing = self._by_hash(credential.proof)
        if standing is None:
            raise invalid("What you logged in by does not hold any more: log in again.")
        return standing

    def _unsealed(self, seal: str) -> str:
        """The proof; nothing where it is none of those that may hold."""
        versions = self._versions()
        if self._seals[0] != versions:
            proofs = [
                *filter(None, [self._own_token_hash]),
                *([] if self._tokens is None else self._tokens.hashes),
                *([] if self._provider is None else self._provider.proofs),
            ]
            self._seals = versions, {self.sessions.seal(proof): proof for proof in proofs}
        return self._seals[1].get(seal, "")

    def _versions(self) -> tuple[int, ...]:
        """Of all that clients are known by."""
        return tuple(it.version for it in (self._tokens, self._provider, self.sessions.ended) if it is not None)


def _bearer_in(authorization: str) -> str:
    """The token of `Bearer TOKEN`. Raises `AuthenticationError`."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise invalid("Send the token as `Authorization: Bearer TOKEN`.")
    return token.strip()


def _cookie_in(visitor: Visitor) -> str | None:
    cookie = visitor.headers.get("cookie")
    return None if cookie is None else read_cookie(cookie, cookie_name(visitor)) or None


__all__ = ["ANYBODY", "OWNER", "AuthenticationError", "Authenticator"]
