"""The heartbeat of a connection to Redis: tells a server that is only slow or paused from one that is lost."""

from __future__ import annotations

import time

from redis.exceptions import ConnectionError as RedisConnectionError

HEARTBEAT = 1.0
"""Seconds of silence after which the server is asked whether it is still there, and the shortest for its answer."""
PATIENCE = 8.0
"""Seconds without that answer until the connection counts as lost. A server that is only busy answers late."""
_USUAL_ANSWERS = 4
"""So many times as long as its answers usually take, a server may take before it is said to be silent."""
_NEW_SHARE = 1 / 8
"""The share of the latest answer in what is usual, as in TCP."""


class Heartbeat:
    """Knows when the server was asked, and how long its answers usually take."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._usual = 0.0

    @property
    def is_asked(self) -> bool:
        return self._asked_at is not None

    def ask(self) -> None:
        self._asked_at = time.monotonic()

    def note_answer(self, *, is_usual: bool = True) -> None:
        """`is_usual` says that the time that it took counts."""
        if is_usual and self._asked_at is not None:
            took = min(
                time.monotonic() - self._asked_at, HEARTBEAT
            )  # so that one pause does not delay word of the next
            self._usual += (took - self._usual) * _NEW_SHARE
        self._asked_at = None

    def note_notices(self) -> None:
        """The answer comes after all notices: who sends them is still there."""
        self._asked_at = None

    def is_late(self) -> bool:
        """Whether the answer takes longer than usual. Raises redis-py's `ConnectionError` at the end of patience."""
        waited = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
        if waited >= PATIENCE:
            raise RedisConnectionError("it does not answer any more")
        return waited >= min(max(HEARTBEAT, _USUAL_ANSWERS * self._usual), PATIENCE / 2)
