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
_READ_EVERY = 0.4
"""Seconds between two looks for what other servers have ended."""
_CLOCKS_DIFFER = 90.0
"""Seconds, at most, of two servers."""


class EndedSessions:
    """By their ids, until they would have ended anyway.

    Where they are too many the oldest is forgotten, and in its place holds that whatever began before its end is over:
    nobody comes back by ending many others.
    """

    def __init__(self, longest: float) -> None:
        """`longest`: seconds that a session lasts at most."""
        self._longest = longest
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._over_before = 0.0
        self._untold: deque[tuple[str, float]] = deque(maxlen=MAX_ENDED)
        """What other servers were not told of yet."""
        self._notifier = Notifier()
        self.version = 0
        """Counts up whenever more of them have ended."""

    def end(self, id_: str) -> None:
        """At this server at once, at the others soon."""
        now = time.time()
        if self._add(id_, now):
            self._untold.append((id_, now))
            self._notifier.notify()

    def holds(self, id_: str, begun: float) -> bool:
        return id_ in self._ended or begun <= self._over_before

    async def share(self, backend: ResultsBackend) -> None:
        """Tells the other servers of the database, and hears of them, until cancelled.

        While it can't be reached what was ended here is ended here only.
        """
        since, problem = 0.0, None
        while True:
            change, now = self._notifier.next, time.time()
            try:
                while self._untold:
                    await backend.leave_message(
                        _BOARD, *self._untold[0], most=MAX_ENDED + 1
                    )  # so many tell that some were forgotten
                    self._untold.popleft()
                for id_, at in sorted((await backend.messages(_BOARD, since)).items(), key=lambda message: message[1]):
                    self._add(id_, at)
                since, problem = now - _CLOCKS_DIFFER, None
            except BackendError as error:
                if str(error) != problem:
                    LOG.warning("%s Sessions that are ended at one server go on at others meanwhile.", error)
                problem = str(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READ_EVERY):
                    await change.wait()

    def _add(self, id_: str, at: float) -> bool:
        """Whether it is new."""
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
