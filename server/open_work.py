"""Opens the sources of observations that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from server.database.merlin_database import MerlinDatabase
from server.settings import Settings
from server.work.source import WorkSource
from server.work.watching import watching


@asynccontextmanager
async def open_work(settings: Settings, database: MerlinDatabase) -> AsyncIterator[Sequence[WorkSource]]:
    """Observes the work beside a database until the block ends: yields the sources. Raises `SettingsError`."""
    sources = sources_of(settings, database)
    async with watching(database.observations, sources):
        yield sources


def sources_of(settings: Settings, database: MerlinDatabase) -> list[WorkSource]:  # noqa: ARG001 - sources come
    """Those that the settings name."""
    return []
