"""Opens the sources of observations that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.database.merlin_database import MerlinDatabase
from server.open_database import workspace_roots_of
from server.settings import Settings
from server.work.source import WorkSource
from server.work.watching import watching
from server.work.workspace.reader import WorkspaceFiles


@asynccontextmanager
async def open_work(settings: Settings, database: MerlinDatabase) -> AsyncIterator[None]:
    """Observes the work beside a database until the block ends. Raises `SettingsError`."""
    async with watching(database.observations, sources_of(settings, database)):
        yield


def sources_of(settings: Settings, database: MerlinDatabase) -> list[WorkSource]:
    """Those that the settings name."""
    sources: list[WorkSource] = []
    if roots := workspace_roots_of(settings):
        files = WorkspaceFiles(database.read_model, database.observations, roots)
        database.observations.reader = files
        sources.append(files)
    return sources
