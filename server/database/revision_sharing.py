"""Shares the revision: what Merlin changes is counted by each server for itself, and stored here for the others."""

from __future__ import annotations

import asyncio
import logging

from server.database.backends.base import ResultsBackend
from server.database.errors import BackendError
from server.database.feed import Feed

LOG = logging.getLogger(__name__)

_INTERVAL = 1.0
"""Seconds between two looks at the count in the database."""
_INTERVAL_AFTER_REFUSAL = 30.0


class RevisionSharing:
    """Takes the database's count, or raises it to this server's, until all servers have the same one."""

    def __init__(self, backend: ResultsBackend, feed: Feed, *, read_only: bool) -> None:
        self._backend = backend
        self._feed = feed
        self._read_only = read_only

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        revisions = self._backend.revisions
        while True:
            await asyncio.sleep(_INTERVAL)
            if not self._feed.settled.is_set():
                continue
            try:
                await self._backend.read_revision()
                revisions.follow()
                if revisions.to_store is not None and not self._read_only:
                    await self._backend.store_revision(revisions.to_store)
                    revisions.follow()
            except BackendError as error:
                LOG.debug("The revision is not shared for now: %s", error)
                await asyncio.sleep(_INTERVAL_AFTER_REFUSAL)
