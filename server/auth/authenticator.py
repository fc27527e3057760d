"""Finds the identity of a client by its token, or by its session cookie."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from schema.roles import Role
from server.auth.identity import AuthenticationError, Credential, Identity, invalid, missing
from server.auth.lease import Lease
from server.auth.origins import is_own
from server.auth.session_cookie import Session, Sessions, cookie_name, read_cookie
from server.auth.token_file import TokenFile, hash_of
from server.auth.unused_sessions import UnusedSessions
from server.auth.visitor import Visitor
from server.database.backends.base import ResultsBackend
from server.database.notifier import Notifier
from server.errors import UsageError

LOG = logging.getLogger(__name__)

OWNER = "owner"
"""The name of the client that uses the token made at startup."""
ANYBODY = Identity("anybody", Role.ADMIN)
_OWNER = Identity(OWNER, Role.ADMIN)
_MAX_TOKEN_LENGTH = 8_192
"""Characters."""
KEY = "key:"
"""The prefix of a proof that is the thumbprint of an identity provider's key; other proofs are hashes of tokens."""
_CHECK_INTERVAL = 0.4
"""Seconds between two checks whether tokens, keys or ended sessions have changed."""


class ProviderError(UsageError):
    """The keys of an identity provider are not available. The message is one line."""


class Provider(Protocol):
    """The interface of `identity_provider.IdentityProvider`, whose library is an optional extra."""

    async def open(self) -> None:
        """Reads the keys. Raises `ProviderError`."""

    async def follow(self) -> None:
        """Keeps the keys up to date, until cancelled."""

    def reload(self) -> None:
        """Has `follow` read the keys now."""

    def known(self, token: str) -> Credential | None:
        """The credential of a token that was verified a short time ago; else None."""

    def identify(self, token: str) -> Credential:
        """Verifies a token. Raises `AuthenticationError`."""

    def still(self, credential: Credential) -> Identity:
        """The identity, if the credential is still valid. Raises `AuthenticationError`."""

    @property
    def size(self) -> int:
        """Bytes, about, of the tokens that it remembers."""

    @property
    def proofs(self) -> Iterable[str]:
        """The proofs of all credentials that can be valid now."""

    @property
    def version(self) -> int:
        """Changes whenever the answers of `still` may change."""


class Authenticator:
    """Knows the tokens, the identity provider and the sessions, and identifies clients by them."""

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
        """`is_open`: everybody is let in. `max_role`: the highest role that any client gets."""
        self.sessions = sessions
        self._own_token_hash = own_token_hash
        self._tokens = tokens
        self._provider = provider
        self.is_open = is_open
        self._max_role = max_role
        self._changes = Notifier()
        self._unused_sessions = UnusedSessions()
        self._seals: tuple[tuple[int, ...], Mapping[str, str]] = (), {}

    @property
    def size(self) -> int:
        """Bytes, about, of the verified tokens that are remembered."""
        return 0 if self._provider is None else self._provider.size

    async def open(self) -> None:
        """Reads the identity provider's keys. Raises `ProviderError`."""
        if self._provider is not None:
            await self._provider.open()

    async def follow(self, backend: ResultsBackend) -> None:
        """Follows changes of tokens, keys and ended sessions, and notifies the leases of each, until cancelled.

        `backend`: through it, the servers of one database share the sessions that were ended.
        """
        if self.is_open:
            return
        tasks = [self._watch(), self.sessions.ended.share(backend)]
        if self._provider is not None:
            tasks.append(self._provider.follow())
        await asyncio.gather(*tasks)

    def reload(self) -> None:
        """Reads the tokens and the keys again now, whether or not they seem to have changed."""
        LOG.info("SIGHUP: the tokens and the keys are read again.")
        if self._tokens is not None:
            self._tokens.reload()
        if self._provider is not None:
            self._provider.reload()

    async def _watch(self) -> None:
        seen = self._versions()
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            if self._tokens is not None:
                self._tokens.reload_if_changed()
            now = self._versions()
            if now != seen:
                seen = now
                self._changes.notify()

    def identify(self, visitor: Visitor) -> Lease:
        """Identifies a client by its token or its session. Raises `AuthenticationError`.

        A session is valid for pages of this server only: pages of other origins send a token.
        """
        if self.is_open:
            return self._lease(visitor, lambda: ANYBODY)
        if (authorization := visitor.headers.get("authorization")) is not None:
            credential = self._credential_of(_bearer_in(authorization))
            return self._lease(visitor, lambda: self._of_credential(credential))
        if (value := _cookie_in(visitor)) is not None and is_own(visitor.headers):
            session = self.sessions.read(value)
            return self._lease(visitor, lambda: self._of_session(session))
        raise missing(self._unused_sessions.hint(visitor))

    def identify_sync(self, token: str) -> Identity | None:
        """The identity of a token, if it is known without verifying a signature; if None, call `identify`."""
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
        """Begins a session and returns it with the value of its cookie. Raises `AuthenticationError`."""
        return self.sessions.begin(self._credential_of(token))

    def log_out(self, visitor: Visitor) -> Session | None:
        """Ends the session of a browser and returns it; None if there is none."""
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
        # Not compared in constant time: only hashes are compared, and timing reveals no more than the hash.
        if hash_ == self._own_token_hash:
            return _OWNER
        return None if self._tokens is None else self._tokens.identify(hash_)

    def _lease(self, visitor: Visitor, ask: Callable[[], Identity]) -> Lease:
        """A lease whose identity is checked once, here. Raises `AuthenticationError`."""
        lease = Lease(visitor, lambda: ask().limited_to(self._max_role), self._changes)
        lease.identity()
        return lease

    def _of_session(self, session: Session) -> Identity:
        """A session ends at its own time, or with the credential that began it, whose current role it has."""
        self.sessions.check(session)
        current = self._of_credential(Credential(session.identity, self._proof_of(session.seal)))
        until = min(filter(None, (session.identity.expires, current.expires)))
        return Identity(current.name, current.role, until)

    def _of_credential(self, credential: Credential) -> Identity:
        if self._provider is not None and credential.proof.startswith(KEY):
            return self._provider.still(credential)
        identity = self._by_hash(credential.proof)
        if identity is None:
            raise invalid("The token that you logged in with is no longer valid: log in again.")
        return identity

    def _proof_of(self, seal: str) -> str:
        """The proof behind a seal; empty if no proof that is valid now has this seal."""
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
        """The versions of the tokens, the keys and the ended sessions."""
        return tuple(
            source.version for source in (self._tokens, self._provider, self.sessions.ended) if source is not None
        )


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
