"""What every request passes, whichever protocol it speaks: whose page it is of, who asks, and how often."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from schema.roles import Role
from server.auth.authenticator import Authenticator
from server.auth.identity import Identity
from server.auth.lease import Lease
from server.auth.origins import is_own_or_allowed, may_be_forged
from server.auth.rate_limit import RateLimit
from server.requests import RequestError


@dataclass(frozen=True, slots=True)
class Door:
    authenticator: Authenticator
    allowed_origins: Collection[str] = ()
    """Beside the server's own."""
    rate_limit: RateLimit | None = None

    def admit(self, headers: Mapping[str, str], method: str) -> Lease:
        """Raises `AuthenticationError`, `RequestError`."""
        if method == "GET":
            if may_be_forged(headers, self.allowed_origins):
                raise RequestError("Another site may have made this request: send it by POST.", 403)
        elif "cookie" in headers:
            self.check_origin(headers)
        lease = self.authenticator.identify(headers)
        self.count(lease.identity())
        return lease

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raises `RequestError`."""
        if not is_own_or_allowed(headers, self.allowed_origins):
            raise RequestError("Pages of this origin are not let in: see the setting --allow-origins.", 403)

    def check_role(self, lease: Lease, need: Role) -> None:
        """For what is no operation. Raises `RequestError`, `AuthenticationError`."""
        role = lease.identity().role
        if role is None or not role.includes(need):
            raise RequestError(f"This needs the role {need}, and this client has {role or 'none'}.", 403)

    def would_refuse(self, identity: Identity) -> bool:
        """Whether `count` would; nothing is counted."""
        return self.rate_limit is not None and self.rate_limit.is_exhausted(identity.name)

    def count(self, identity: Identity) -> None:
        """Raises `RequestError`."""
        if self.rate_limit is None:
            return
        wait = self.rate_limit.wait(identity.name)
        if wait:
            seconds = math.ceil(wait)
            raise RequestError(f"Too many requests: try again in {seconds} s.", 429, {"retry-after": str(seconds)})
