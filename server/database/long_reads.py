"""Long reads: answers that are computed in slices, all of one of them from the same revision of the copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class LongReads:
    """Lets one long read go on at a time, and no change of the copy during it.

    After a read for which a change had to wait, changes get as much time. Clients take turns.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._clients: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()
        self._current: asyncio.Future[None] | None = None
        """Done when the current read ends."""
        self._changes = 0
        """How many changes wait."""
        self._pause_until = 0.0
        """By the loop's clock."""

    @asynccontextmanager
    async def reading(self, client: str | None) -> AsyncGenerator[None]:
        """The copy does not change inside of the block, which is entered when it is the client's turn."""
        of_client = self._clients.setdefault(client, asyncio.Lock())
        async with of_client, self._turn:
            loop = asyncio.get_running_loop()
            if (pause := self._pause_until - loop.time()) > 0:
                await asyncio.sleep(pause)
            began = loop.time()
            self._current = loop.create_future()
            try:
                yield
            finally:
                self._current.set_result(None)
                self._current = None
                if self._changes:
                    self._pause_until = 2 * loop.time() - began

    async def ended(self) -> None:
        """Returns when no long read goes on: until its next `await`, the caller may change the copy."""
        while self._current is not None:
            self._changes += 1
            try:
                await asyncio.shield(self._current)
            finally:
                self._changes -= 1
