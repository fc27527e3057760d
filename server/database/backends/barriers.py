"""Barriers: callers that wait until a watch has reported every change that was committed before they called."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Waiting = Sequence[asyncio.Future[None]]


class Barriers:
    """Is shared by a backend's `watch`, which looks and reports, and by those who wait for a look."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def join(self) -> asyncio.Future[None]:
        """Is done after the next look that begins from now on, and its report."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    @contextmanager
    def look(self) -> Iterator[None]:
        """Around a look at the store and its report, which let all through that joined before.

        A look that fails lets nobody through: they wait for the next one.
        """
        waiting = self.take()
        try:
            yield
        except BaseException:
            self.put_back(waiting)
            raise
        release(waiting)

    def take(self) -> Waiting:
        """Those that wait now; for `release`, after what they wait for was reported."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def put_back(self, waiting: Waiting) -> None:
        """They wait for the next look after all."""
        self._waiting += waiting


def release(waiting: Waiting) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
