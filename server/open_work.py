"""Opens the sources of observations that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from server.database.errors import WrongDatabaseError
from server.database.merlin_database import MerlinDatabase
from server.open_database import first_line
from server.settings import Settings, SettingsError
from server.work.broker import Broker, BrokerError, make_broker
from server.work.source import WorkSource
from server.work.watching import watching


@asynccontextmanager
async def open_work(settings: Settings, database: MerlinDatabase) -> AsyncIterator[Sequence[WorkSource]]:
    """Observes the work beside a database until the block ends: yields the sources. Raises `SettingsError`."""
    sources = sources_of(settings, database)
    async with watching(database.observations, sources):
        yield sources


def broker_of(settings: Settings) -> Broker | None:
    """The broker that the settings name, not asked yet; None for sample data, which nobody works on.

    Raises `SettingsError`.
    """
    if settings.broker is None or settings.is_demo:
        return None
    try:
        return make_broker(settings.broker, first_line(settings.broker_password_file))
    except (BrokerError, WrongDatabaseError) as error:
        raise SettingsError(f"broker: {error}") from None


def sources_of(settings: Settings, database: MerlinDatabase) -> list[WorkSource]:  # noqa: ARG001 - sources come
    """Those that the settings name."""
    return []
