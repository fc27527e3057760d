"""Access control of every request, over any protocol: its origin, its identity, its role, its rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from starlette.types import Scope

from schema.allowance import UNLIMITED, Allowance
from schema.roles import Role
from server.auth.authenticator import Authenticator
from server.auth.client_budget import ClientBudget
from server.auth.failed_logins import FailedLogins
from server.auth.identity import AuthCode, AuthenticationError, Identity
from server.auth.lease import Lease
from server.auth.origins import is_own, is_own_or_allowed, may_be_forged
from server.auth.quota import Quota
from server.auth.rate_limit import RateLimit
from server.auth.refused_origins import RefusedOrigins
from server.auth.security_log import SecurityLog
from server.auth.session_cookie import Session
from server.auth.visitor import Visitor, visitor_of
from server.errors import RequestError

FORBIDDEN = 403
_SAFE_METHODS = ("GET", "HEAD")
_MAY_BE_FORGED = "Another site may have made this request: send it as a POST, or with the header X-Requested-With."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AccessControl:
    """Authenticates requests, checks origins, roles and rates, and knows what each client may still use."""

    authenticator: Authenticator
    allowed_origins: Collection[str] = ()
    """Origins whose pages are allowed in addition to the server's own."""
    rate_limit: RateLimit | None = None
    budget: RateLimit | None = None
    """Of points of cost."""
    connections: Quota = field(default_factory=Quota)
    """Websockets and event streams."""
    subscriptions: Quota = field(default_factory=Quota)
    security_log: SecurityLog = field(default_factory=SecurityLog)
    _failed_logins: FailedLogins = field(default_factory=FailedLogins)
    _refused_origins: RefusedOrigins = field(default_factory=RefusedOrigins)

    def authenticate(self, visitor: Visitor) -> Lease:
        """Checks the origin of an HTTP request, identifies its client and counts the request against the rate limit.

        Raises `AuthenticationError`, `RequestError`.
        """
        if not self.lets_page_in(visitor.method, visitor.headers):
            if visitor.method not in _SAFE_METHODS or "origin" in visitor.headers:
                self.check_origin(visitor)
            raise self._refused(visitor, _MAY_BE_FORGED)
        lease = self.identify(visitor)
        self.consume(lease.identity())
        return lease

    def lets_page_in(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether no page of another site, but for those of allowed origins, may have sent a request."""
        if method in _SAFE_METHODS:
            return not may_be_forged(headers, self.allowed_origins)
        return "cookie" not in headers or is_own_or_allowed(headers, self.allowed_origins)

    def identify(self, visitor: Visitor) -> Lease:
        """Identifies a client; the rate limit is not touched. Raises `AuthenticationError`, `RequestError`."""
        return self._attempt(visitor, visitor.token, lambda: self.authenticator.identify(visitor))

    def identify_sync(self, authorization: bytes | None, scope: Scope) -> Identity | None:
        """The identity behind an `Authorization` header, if no I/O and no signature check is needed; else None."""
        header = b"" if authorization is None else authorization
        if header[:7].lower() != b"bearer " and not self.authenticator.is_open:
            return None
        token = header[7:].decode("latin-1").strip()
        if self._failed_logins.are_any and self._failed_logins.refuses(visitor_of(scope), token):
            return None
        return self.authenticator.identify_sync(token)

    def session_sync(self, headers: Mapping[str, str], scope: Scope) -> Lease | None:
        """The lease of a browser's session; None if there is none, or if something else identifies the client."""
        if "cookie" not in headers or "authorization" in headers or self.authenticator.is_open:
            return None
        try:
            return self.authenticator.identify(replace(visitor_of(scope), headers=headers))
        except AuthenticationError:
            return None

    def log_in(self, visitor: Visitor, token: str) -> tuple[Session, str]:
        """Begins a session; returns it with its cookie's value. Raises `AuthenticationError`, `RequestError`."""
        session, value = self._attempt(visitor, token, lambda: self.authenticator.log_in(token))
        self.consume(session.identity)
        self._end_session(visitor)  # the previous session of this browser, if any
        self.security_log.begun(visitor, session)
        return session, value

    def log_out(self, visitor: Visitor) -> None:
        """Ends the session of a browser, if it has one. Raises `RequestError`."""
        self.check_own_page(visitor)
        self._end_session(visitor)

    def check_origin(self, visitor: Visitor) -> None:
        """Refuses a page whose origin is neither the server's own nor allowed. Raises `RequestError`."""
        if not is_own_or_allowed(visitor.headers, self.allowed_origins):
            raise self._refused(visitor, self._refused_origins.refusal(visitor.headers))

    def check_own_page(self, visitor: Visitor) -> None:
        """Refuses a request that only a page of this server may send. Raises `RequestError`."""
        if not is_own(visitor.headers):
            raise self._refused(visitor, "Log in and out from a page of this server, or open its address directly.")

    def check_role(self, lease: Lease, need: Role, what: str) -> None:
        """Checks the role for an endpoint `what` outside GraphQL. Raises `RequestError`, `AuthenticationError`."""
        identity = lease.identity()
        if identity.role is None or not identity.role.includes(need):
            self.security_log.forbidden(lease.visitor, identity, what)
            message = f"{what} needs the role {need}, and this client has {identity.role or 'none'}."
            raise RequestError(message, FORBIDDEN)

    def is_rate_limited(self, identity: Identity) -> bool:
        """Whether `consume` would refuse the next request; nothing is counted."""
        return self.rate_limit is not None and self.rate_limit.is_exhausted(identity.name)

    def consume(self, identity: Identity) -> None:
        """Counts one request against the rate limit. Raises `RequestError` when the limit is reached."""
        if self.rate_limit is None:
            return
        wait = self.rate_limit.wait(identity.name)
        if wait:
            seconds = math.ceil(wait)
            raise RequestError(f"Too many requests: try again in {seconds} s.", 429, {"retry-after": str(seconds)})

    def allowance(self, identity: Identity) -> Allowance:
        """The points that the operations of a client may still cost."""
        return UNLIMITED if self.budget is None else ClientBudget(self.budget, identity.name)

    def _end_session(self, visitor: Visitor) -> None:
        session = self.authenticator.log_out(visitor)
        if session is not None:
            self.security_log.ended(visitor, session)

    def _attempt(self, visitor: Visitor, token: str, action: Callable[[], T]) -> T:
        """Runs an action that may fail, and logs and counts the failure. `token` is empty without a token.

        Raises `AuthenticationError`, `RequestError`.
        """
        try:
            if self._failed_logins.refuses(visitor, token):
                self._failed_logins.count(visitor)
            return action()
        except AuthenticationError as error:
            if error.code is not AuthCode.UNAUTHENTICATED:  # a request without credentials is no attempt
                self.security_log.refused(visitor, error.code)
            if token and error.code is AuthCode.INVALID_TOKEN:
                self._failed_logins.count(visitor)
            raise
        except RequestError as error:
            self.security_log.refused(visitor, error.code)
            raise

    def _refused(self, visitor: Visitor, why: str) -> RequestError:
        error = RequestError(why, FORBIDDEN)
        self.security_log.refused(visitor, error.code)
        return error
