"""The identity of a client, and the error for a client without one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from schema.roles import Role


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, and what it may do."""

    name: str
    """The name in the audit log and the key of the rate limit."""
    role: Role | None
    """The highest role; None: the client is known but may do nothing."""
    expires: float | None = None
    """Seconds since the epoch."""

    def limited_to(self, max_role: Role) -> Identity:
        """The same identity, with at most this role."""
        if self.role is None or max_role.includes(self.role):
            return self
        return Identity(self.name, max_role, self.expires)


class Credential(NamedTuple):
    """An identity and what proves it."""

    identity: Identity
    proof: str
    """The hash of a token, or `key:` and the thumbprint of a provider's key: while it is valid, the identity is."""


class AuthCode(StrEnum):
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """The client has sent neither a token nor a session cookie."""
    INVALID_TOKEN = "INVALID_TOKEN"  # noqa: S105 - no password
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - no password


class AuthenticationError(Exception):
    """The client is not known. The message says what to do, and never repeats what the client sent."""

    def __init__(self, code: AuthCode, message: str, *, may_pass: bool = False) -> None:
        """`may_pass`: whether the same token may be accepted a minute later."""
        super().__init__(message)
        self.code = code
        self.may_pass = may_pass

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate`: RFC 6750, section 3."""
        realm = 'Bearer realm="merlin-graphql"'
        if self.code is AuthCode.UNAUTHENTICATED:
            return realm
        return f'{realm}, error="invalid_token", error_description="{self}"'


def missing(hint: str = "") -> AuthenticationError:
    """`hint`: a sentence that says why the client may believe that it is logged in."""
    message = (
        "Not logged in: send a token as `Authorization: Bearer TOKEN`, or open the address that the server printed."
    )
    return AuthenticationError(AuthCode.UNAUTHENTICATED, f"{message} {hint}".rstrip())


def invalid(why: str = "This token is not known here.", *, may_pass: bool = False) -> AuthenticationError:
    return AuthenticationError(AuthCode.INVALID_TOKEN, why, may_pass=may_pass)


def expired() -> AuthenticationError:
    return AuthenticationError(AuthCode.TOKEN_EXPIRED, "This token has expired: ask for a new one.")
