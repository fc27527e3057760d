"""Opens the sources of observations that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from server.database.errors import WrongDatabaseError
from server.database.merlin_database import MerlinDatabase
from server.database.tasks import alongside
from server.open_database import first_line, workspace_roots_of
from server.settings import Settings, SettingsError
from server.work.broker import Broker, BrokerError, make_broker
from server.work.demo_queues import DemoQueues
from server.work.demo_workers import DemoWorkers
from server.work.history import HistoryRecorder
from server.work.progress import TaskRegister
from server.work.queues import BrokerQueues
from server.work.source import WorkSource
from server.work.stuck_runs import StuckRuns
from server.work.watching import watching
from server.work.workspace.reader import WorkspaceFiles


@asynccontextmanager
async def open_work(settings: Settings, database: MerlinDatabase) -> AsyncIterator[Sequence[WorkSource]]:
    """Observes the work beside a database until the block ends: yields the sources. Raises `SettingsError`."""
    tasks = TaskRegister(database.read_model, database.observations)
    sources = sources_of(settings, database, tasks)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(tasks.showing())
        await stack.enter_async_context(alongside(StuckRuns(database).run()))
        await stack.enter_async_context(watching(database.observations, sources))
        yield sources


def sources_of(settings: Settings, database: MerlinDatabase, tasks: TaskRegister) -> list[WorkSource]:
    """Those that the settings name. Raises `SettingsError`."""
    if settings.enable_task_events and settings.read_only:
        raise SettingsError("enable-task-events: with --read-only nothing is sent to workers; leave out one of both.")
    sources = [
        *(_demo_sources(settings, database) if settings.is_demo else _broker_sources(settings, database, tasks)),
        *_results(database, tasks),
        *_workspace_files(settings, database),
    ]
    return sources if settings.read_only else [*sources, HistoryRecorder(database)]


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


def _broker_sources(settings: Settings, database: MerlinDatabase, tasks: TaskRegister) -> list[WorkSource]:
    broker = broker_of(settings)
    if broker is None:
        return []
    queues = BrokerQueues(broker, database)
    return [queues, _celery_events(broker, settings, database, tasks)] if broker.is_redis else [queues]


def _celery_events(broker: Broker, settings: Settings, database: MerlinDatabase, tasks: TaskRegister) -> WorkSource:
    from server.database.backends.redis_client import RedisClients  # noqa: PLC0415 - a driver is loaded where it is used
    from server.work.celery_events import CeleryEvents  # noqa: PLC0415 - as above
    from server.work.task_event_requests import TaskEventRequests  # noqa: PLC0415 - as above

    clients = RedisClients(broker.url, broker.password, broker.tls, noun="broker")
    requests = TaskEventRequests(clients) if settings.enable_task_events else None
    observations, copy = database.observations, database.read_model
    return CeleryEvents(clients, observations, copy, listeners=[tasks.note], requests=requests)


def _demo_sources(settings: Settings, database: MerlinDatabase) -> list[WorkSource]:
    """Of sample data that has files, as if there were a broker."""
    return [DemoQueues(database), DemoWorkers(database)] if _demo_folder(settings, database) else []


def _demo_folder(settings: Settings, database: MerlinDatabase) -> Path | None:
    """The folder that was made for the workspaces of sample data: the first root, but in memory."""
    return workspace_roots_of(settings)[0] if settings.is_demo and database.backend.kind != "memory" else None


def _workspace_files(settings: Settings, database: MerlinDatabase) -> list[WorkSource]:
    roots = workspace_roots_of(settings)
    if not roots:
        return []
    below = _demo_folder(settings, database)
    files = WorkspaceFiles(database.read_model, database.observations, roots, below=below)
    database.observations.reader = files
    return [files]


def _results(database: MerlinDatabase, tasks: TaskRegister) -> list[WorkSource]:
    """Celery keeps its results in the database, if that is Redis."""
    if database.kind != "redis":
        return []
    from server.database.backends.redis import RedisBackend  # noqa: PLC0415 - a driver is loaded where it is used
    from server.work.results import CeleryResults  # noqa: PLC0415 - as above

    if not isinstance(database.backend, RedisBackend):
        return []
    return [CeleryResults(database.backend.clients, database.observations, database.read_model, tasks)]
