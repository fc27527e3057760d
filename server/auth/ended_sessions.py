"""Sessions that were ended before their time, shared by all servers of a database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque

from server.database.backends.base import ResultsBackend
from server.database.errors import BackendError
from server.database.notifier import Notifier

LOG = logging.getLogger(__name__)

MAX_ENDED = 20_000
_BOARD = "ended-sessions"
_READ_INTERVAL = 0.4
"""Seconds between two reads of the sessions that other servers have ended."""
_MAX_CLOCK_SKEW = 90.0
"""Seconds by which the clocks of two servers may differ."""


class EndedSessions:
    """The ids of ended sessions, each kept until the session would have expired anyway.

    Above `MAX_ENDED` the oldest id is dropped, and every session that began before that one was ended counts as ended.
    So nobody can revive a session by ending many others.
    """

    def __init__(self, longest: float) -> None:
        """`longest`: seconds that a session lasts at most."""
        self._longest = longest
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._over_before = 0.0
        self._unshared: deque[tuple[str, float]] = deque(maxlen=MAX_ENDED)
        """Sessions that the other servers do not know of yet."""
        self._notifier = Notifier()
        self.version = 0
        """Counts up with every ended session."""

    def end(self, id_: str) -> None:
        """Ends a session: here at once, at the other servers within about `_READ_INTERVAL`."""
        now = time.time()
        if self._add(id_, now):
            self._unshared.append((id_, now))
            self._notifier.notify()

    def holds(self, id_: str, begun: float) -> bool:
        """Whether a session was ended. `begun`: seconds since the epoch."""
        return id_ in self._ended or begun <= self._over_before

    async def share(self, backend: ResultsBackend) -> None:
        """Shares ended sessions with the other servers of the database, in both directions, until cancelled.

        While the database can't be reached, a session that was ended here is ended at this server only.
        """
        since, problem = 0.0, None
        while True:
            change, now = self._notifier.next, time.time()
            try:
                while self._unshared:
                    await backend.leave_message(
                        _BOARD, *self._unshared[0], most=MAX_ENDED + 1
                    )  # one more than is kept: so readers see that ids were dropped
                    self._unshared.popleft()
                for id_, at in sorted((await backend.messages(_BOARD, since)).items(), key=lambda message: message[1]):
                    self._add(id_, at)
                since, problem = now - _MAX_CLOCK_SKEW, None
            except BackendError as error:
                if str(error) != problem:
                    LOG.warning(
                        "%s Until it is back, a session that is ended at one server stays valid at the others.", error
                    )
                problem = str(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READ_INTERVAL):
                    await change.wait()

    def _add(self, id_: str, at: float) -> bool:
        """Whether the id is new."""
        if id_ in self._ended:
            return False
        self._ended[id_] = at
        while (oldest := next(iter(self._ended.values()))) < at - self._longest:
            self._ended.popitem(last=False)
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
            self._over_before = max(self._over_before, oldest)
        self.version += 1
        return True
