"""The limits of all connections of a process: their number, their waiting times, their unread bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from server.settings import Settings

RESERVED = 16
"""Connections beyond `max_connections`, so that health checks are answered when all others are taken."""


class Connection(Protocol):
    @property
    def unread(self) -> int:
        """Bytes that wait for the client."""
        ...

    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class ConnectionLimits:
    body_seconds: float
    """How long the body of a request may take to arrive."""
    send_seconds: float
    """How long a client may read nothing of what waits for it."""
    unread: Unread
    surplus: Surplus

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        return cls(settings.deadline, settings.send_timeout, Unread(settings.max_unread * 2**20), Surplus())


@dataclass(frozen=True, slots=True, eq=False)
class Surplus:
    """Connections beyond `max_connections`. A new one takes the place of the oldest: so one whose request comes at
    once is answered, however many silent ones there are."""

    _connections: deque[Connection] = field(default_factory=deque)

    def add(self, connection: Connection) -> None:
        self._connections.append(connection)
        if len(self._connections) > RESERVED:
            self._connections.popleft().abort()

    def discard(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)


class Unread:
    """Connections whose clients read too slowly. A client that leaves more unread than it may loses the one that waits
    longest; a single answer may be longer."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of one client."""
        self._most = most
        self._slow: dict[str, dict[Connection, None]] = {}
        """By client."""
        self._clients: dict[Connection, str] = {}

    def add(self, client: str, connection: Connection, *, has_several: bool = False) -> None:
        """Also where more waits than before. `has_several`: it has more than one answer waiting."""
        client = self._clients.setdefault(connection, client)
        slow = self._slow.setdefault(client, {})
        slow[connection] = None
        total = sum(each.unread for each in slow)
        for oldest in list(slow):
            if total <= self._most or (oldest is connection and not has_several):
                break
            total -= oldest.unread
            self.discard(oldest)
            oldest.abort()

    def discard(self, connection: Connection) -> None:
        client = self._clients.pop(connection, None)
        if client is not None:
            del self._slow[client][connection]
            if not self._slow[client]:
                del self._slow[client]
