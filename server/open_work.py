"""Opens the sources of observations that the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.database.errors import WrongDatabaseError
from server.database.merlin_database import MerlinDatabase
from server.database.tasks import end_tasks
from server.open_database import first_line
from server.settings import Settings, SettingsError
from server.work.broker import Broker, BrokerError, make_broker
from server.work.progress import TaskRegister
from server.work.queues import BrokerQueues
from server.work.source import WorkSource
from server.work.stuck_runs import StuckRuns
from server.work.watching import watching


@asynccontextmanager
async def open_work(settings: Settings, database: MerlinDatabase) -> AsyncIterator[None]:
    """Observes the work beside a database until the block ends. Raises `SettingsError`."""
    register = TaskRegister(database.read_model, database.observations)
    async with register.showing(), watching(database.observations, sources_of(settings, database, register)):
        stuck_runs = asyncio.create_task(StuckRuns(database).run())
        try:
            yield
        finally:
            await end_tasks([stuck_runs])


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


def sources_of(settings: Settings, database: MerlinDatabase, register: TaskRegister) -> list[WorkSource]:
    """Those that the settings name, and Celery's results in a database that is Redis. Raises `SettingsError`."""
    if settings.enable_task_events and settings.read_only:
        raise SettingsError("enable-task-events: with --read-only nothing is sent to workers; leave out one of both.")
    sources: list[WorkSource] = []
    if (broker := broker_of(settings)) is not None:
        sources.append(BrokerQueues(broker, database))
        if broker.is_redis:
            sources.append(_celery_events(broker, database, register, asks_for_tasks=settings.enable_task_events))
    if database.kind == "redis":
        sources.append(_celery_results(database, register))
    return sources


def _celery_events(
    broker: Broker, database: MerlinDatabase, register: TaskRegister, *, asks_for_tasks: bool
) -> WorkSource:
    from server.database.backends.redis_client import RedisClients  # noqa: PLC0415 - a driver is loaded where it is used
    from server.work.celery_events import CeleryEvents  # noqa: PLC0415 - as above
    from server.work.task_event_requests import TaskEventRequests  # noqa: PLC0415 - as above

    clients = RedisClients(broker.url, broker.password, broker.tls, noun="broker")
    requests = TaskEventRequests(clients) if asks_for_tasks else None
    return CeleryEvents(
        clients, database.observations, database.read_model, listeners=[register.note], requests=requests
    )


def _celery_results(database: MerlinDatabase, register: TaskRegister) -> WorkSource:
    from server.database.backends.redis import RedisBackend  # noqa: PLC0415 - as above
    from server.work.results import CeleryResults  # noqa: PLC0415 - as above

    assert isinstance(database.backend, RedisBackend)
    return CeleryResults(database.backend.clients, database.observations, database.read_model, register)
