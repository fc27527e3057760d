"""Shares the revision: what Merlin changes is counted by each server for itself, and stored here for the others."""

from __future__ import annotations

import asyncio
import logging
import time

from server.database.backends.base import ResultsBackend
from server.database.errors import BackendError
from server.database.feed import Feed

LOG = logging.getLogger(__name__)

_INTERVAL = 1.0
"""Seconds between two looks at the count in the database."""
_INTERVAL_AFTER_FAILURE = 30.0
"""Seconds until storing is tried again: a login may have no right to write."""
_LAST_SECONDS = 1.0
"""For storing at the end."""


class RevisionSharing:
    """Takes the database's count, or raises it to this server's, until all servers have the same one."""

    def __init__(self, backend: ResultsBackend, feed: Feed, *, read_only: bool) -> None:
        self._backend = backend
        self._feed = feed
        self._read_only = read_only

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        store_after = 0.0
        revisions = self._backend.revisions
        while True:
            await asyncio.sleep(_INTERVAL)
            if not self._feed.settled.is_set():
                continue
            try:
                await self._backend.read_revision()
                revisions.follow()
            except BackendError as error:
                LOG.debug("The revision could not be read: %s", error)
                continue
            if revisions.to_store is None or not self._may_store or time.monotonic() < store_after:
                continue
            try:
                await self._backend.store_revision(revisions.to_store)
            except BackendError as error:
                LOG.debug("The revision could not be stored: %s", error)
                store_after = time.monotonic() + _INTERVAL_AFTER_FAILURE

    async def finish(self) -> None:
        """Leaves this server's number to the next one, which must not count anything under it again."""
        number = self._backend.revisions.to_store
        if number is None or not self._may_store or not self._feed.settled.is_set():
            return
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._backend.store_revision(number)
        except (BackendError, TimeoutError) as error:
            LOG.debug("The revision could not be stored: %s", error)

    @property
    def _may_store(self) -> bool:
        return not self._read_only and self._backend.writability.refusal is None
