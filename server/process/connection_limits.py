"""The limits of all connections of a process: their number, their waiting times, their unread bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from server.settings import Settings

RESERVED = 16
"""Connections accepted beyond `max_connections`, so that health checks are still answered when the limit is reached."""


class Connection(Protocol):
    """What the limits need of a connection."""

    @property
    def unread(self) -> int:
        """Bytes that wait for the client to read them."""
        ...

    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class ConnectionLimits:
    """The limits, and the connections that are close to them."""

    body_seconds: float
    """How long the body of a request may take to arrive."""
    send_seconds: float
    """How long a client may read nothing while data waits for it."""
    unread: Unread
    surplus: Surplus

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        return cls(settings.deadline, settings.send_timeout, Unread(settings.max_unread * 2**20), Surplus())


@dataclass(frozen=True, slots=True, eq=False)
class Surplus:
    """Connections beyond `max_connections`. A new one replaces the oldest: so a client that sends its request at once
    is answered, however many silent connections there are."""

    _connections: deque[Connection] = field(default_factory=deque)

    def add(self, connection: Connection) -> None:
        self._connections.append(connection)
        if len(self._connections) > RESERVED:
            self._connections.popleft().abort()

    def discard(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)


class Unread:
    """Connections whose clients read too slowly. A client with more unread bytes than the limit loses the connection
    that has waited longest; a single response may exceed the limit."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: the limit for all connections of one client together."""
        self._max_bytes = max_bytes
        self._slow: dict[str, dict[Connection, None]] = {}
        """By client."""
        self._clients: dict[Connection, str] = {}

    def add(self, client: str, connection: Connection, *, has_several: bool = False) -> None:
        """Adds a connection, or counts again one that was added. `has_several`: more than one response waits on it."""
        client = self._clients.setdefault(connection, client)
        slow = self._slow.setdefault(client, {})
        slow[connection] = None
        total = sum(each.unread for each in slow)
        for oldest in list(slow):
            if total <= self._max_bytes or (oldest is connection and not has_several):
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
