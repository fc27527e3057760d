"""A lease: an identity that holds only as long as the token or the session that proved it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from schema.roles import Role
from server.auth.identity import AuthenticationError, Identity
from server.auth.visitor import Visitor
from server.database.notifier import Notifier

_MAX_CHECK_INTERVAL = 60.0
"""Seconds. A longer wait could miss the expiry, since clocks are adjusted and machines sleep."""


class Lease:
    """An identity of a visitor that is checked again for each operation."""

    __slots__ = ("_ask", "_changes", "visitor")

    def __init__(self, visitor: Visitor, ask: Callable[[], Identity], changes: Notifier) -> None:
        """`ask` returns the identity now, or raises `AuthenticationError`; `changes` notifies when that may change."""
        self.visitor = visitor
        self._ask = ask
        self._changes = changes

    def identity(self) -> Identity:
        """The identity now; call it before each operation. Raises `AuthenticationError`."""
        return self._ask()

    async def ended(self) -> AuthenticationError | None:
        """Waits until the identity is no longer valid, and returns the reason; None: it has another role now.

        What a subscription sends is made for the role that the client had at its beginning.
        """
        roles: set[Role | None] = set()
        while True:
            change = self._changes.next
            try:
                identity = self.identity()
            except AuthenticationError as error:
                return error
            roles.add(identity.role)
            if len(roles) > 1:
                return None
            left = _MAX_CHECK_INTERVAL if identity.expires is None else identity.expires - time.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left, 0.0), _MAX_CHECK_INTERVAL)):
                    await change.wait()
