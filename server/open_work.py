"""Opens the sources of observations that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.database.merlin_database import MerlinDatabase
from server.settings import Settings
from server.work.progress import TaskRegister
from server.work.source import WorkSource
from server.work.watching import watching


@asynccontextmanager
async def open_work(settings: Settings, database: MerlinDatabase) -> AsyncIterator[None]:
    """Observes the work beside a database until the block ends. Raises `SettingsError`."""
    register = TaskRegister(database.read_model, database.observations)
    async with register.showing(), watching(database.observations, sources_of(settings, database, register)):
        yield


def sources_of(settings: Settings, database: MerlinDatabase, register: TaskRegister) -> list[WorkSource]:  # noqa: ARG001 - sources come
    """Those that the settings name."""
    return [*_results(database, register)]


def _results(database: MerlinDatabase, register: TaskRegister) -> list[WorkSource]:
    """Celery keeps its results in the database, if that is Redis."""
    if database.kind != "redis":
        return []
    from server.database.backends.redis import RedisBackend  # noqa: PLC0415 - a driver is loaded where it is used
    from server.work.results import CeleryResults  # noqa: PLC0415 - as above

    if not isinstance(database.backend, RedisBackend):
        return []
    return [CeleryResults(database.backend.clients, database.observations, database.read_model, register)]
