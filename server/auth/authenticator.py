"""Knows clients by what they send: a token, or the cookie that a browser was given for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from schema.roles import Role
from server.auth.identity import AuthenticationError, Identity, invalid, missing
from server.auth.sessions import Session, Sessions, cookie_name, read_cookie
from server.auth.token_file import TokenFile, hash_of

OWNER = "owner"
"""The name of whoever has the token that was made at the start."""
ANYBODY = Identity("anybody", Role.ADMIN)
_OWNER = Identity(OWNER, Role.ADMIN)
_LONGEST_TOKEN = 8_192
"""Characters."""


class ProviderError(Exception):
    """An identity provider's keys can't be had, in one line."""


class Provider(Protocol):
    """`identity_provider.IdentityProvider`, where its library is installed."""

    async def open(self) -> None:
        """Raises `ProviderError`."""

    def known(self, token: str) -> Identity | None: ...

    async def identify(self, token: str) -> Identity: ...


@dataclass(frozen=True, slots=True)
class Authenticator:
    sessions: Sessions
    own_token_hash: str | None = None
    tokens: TokenFile | None = None
    provider: Provider | None = None
    is_open: bool = False
    """Whether everybody is let in."""
    most: Role = Role.ADMIN
    """What nobody has more than."""

    async def open(self) -> None:
        """Raises `ProviderError`."""
        if self.provider is not None:
            await self.provider.open()

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """By the headers of a request. Raises `AuthenticationError`."""
        if self.is_open:
            return ANYBODY.capped(self.most)
        authorization = headers.get("authorization")
        if authorization is not None:
            return await self.by_authorization(authorization)
        cookie = headers.get("cookie")
        if cookie is not None and (value := read_cookie(cookie, cookie_name(headers.get("host", "")))):
            return self._by_session(value)
        raise missing()

    def at_once(self, authorization: bytes | None) -> Identity | None:
        """As `identify` does by that header alone, where nothing must be waited for; else None."""
        if self.is_open:
            return ANYBODY.capped(self.most)
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        token = authorization[7:].decode("latin-1").strip()
        try:
            identity = self._by_hash(hash_of(token))
        except AuthenticationError:
            return None
        if identity is None and self.provider is not None:
            identity = self.provider.known(token)
        return None if identity is None else identity.capped(self.most)

    async def by_authorization(self, value: str) -> Identity:
        """`Bearer TOKEN`. Raises `AuthenticationError`."""
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise invalid("Send the token as `Authorization: Bearer TOKEN`.")
        return await self.by_token(token.strip())

    async def by_token(self, token: str) -> Identity:
        """Raises `AuthenticationError`."""
        if self.is_open:
            return ANYBODY.capped(self.most)
        return (await self._session_of(token)).identity.capped(self.most)

    async def log_in(self, token: str) -> tuple[str, int]:
        """A cookie for a token, and the seconds that it lasts. Raises `AuthenticationError`."""
        return self.sessions.begin(await self._session_of(token))

    async def _session_of(self, token: str) -> Session:
        if not token:
            raise missing()
        if len(token) > _LONGEST_TOKEN:
            raise invalid()
        hash_ = hash_of(token)
        identity = self._by_hash(hash_)
        if identity is None and self.provider is not None:
            hash_, identity = "provider", self.provider.known(token) or await self.provider.identify(token)
        if identity is None:
            raise invalid()
        return Session(identity, hash_)

    def _by_hash(self, hash_: str) -> Identity | None:
        """Of all that is kept as hashes, a look-up tells no more of a token than its hash does."""
        if hash_ == self.own_token_hash:
            return _OWNER
        return None if self.tokens is None else self.tokens.identify(hash_)

    def _by_session(self, value: str) -> Identity:
        """It ends with the token that began it; what that may do now is what counts."""
        identity, proof = self.sessions.read(value)
        if proof == "provider" and self.provider is not None:
            return identity.capped(self.most)
        standing = self._by_hash(proof)
        if standing is None:
            raise invalid("The token of this session does not hold any more: log in again.")
        return Identity(standing.name, standing.role, identity.expires).capped(self.most)


__all__ = ["ANYBODY", "OWNER", "AuthenticationError", "Authenticator"]
