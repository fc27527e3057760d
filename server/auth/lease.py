"""A lease: an identity that holds only as long as the token or the session that proved it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from server.auth.identity import AuthenticationError, Identity
from server.auth.visitor import Visitor
from server.database.notifier import Notifier

_ASK_AT_LEAST_EVERY = 60.0
"""Seconds: clocks are set, and machines sleep."""


class Lease:
    __slots__ = ("_ask", "_changes", "visitor")

    def __init__(self, visitor: Visitor, ask: Callable[[], Identity], changes: Notifier) -> None:
        """`ask` raises `AuthenticationError`; `changes` notifies whenever it may answer otherwise than before."""
        self.visitor = visitor
        self._ask = ask
        self._changes = changes

    def identity(self) -> Identity:
        """Who the client is now. To be asked before each operation. Raises `AuthenticationError`."""
        return self._ask()

    async def ended(self) -> AuthenticationError:
        """Waits until the client is not known any more, and says why."""
        while True:
            change = self._changes.next
            try:
                identity = self.identity()
            except AuthenticationError as error:
                return error
            left = _ASK_AT_LEAST_EVERY if identity.expires is None else identity.expires - time.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left, 0.0), _ASK_AT_LEAST_EVERY)):
                    await change.wait()
