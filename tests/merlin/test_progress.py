"""The progress of a run of real Merlin by real workers, without its files, held against the files."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from celery import Celery

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.workspaces import Progress, Source, TaskStatus
from server.open_work import open_work
from server.settings import Settings
from tests.support.live import DEADLINE, until
from tests.support.merlin_site import Launched, MerlinSite
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

SUCCEEDED, FAILED, RUNNING, UNKNOWN = (
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
    TaskStatus.RUNNING,
    TaskStatus.UNKNOWN,
)
STATUSES = {"FINISHED": SUCCEEDED, "FAILED": FAILED}


def ping(url: str) -> None:
    """Returns when a worker has answered: then it has heeded what it was asked before, such as to send events."""
    app = Celery(broker=url, task_serializer="pickle", accept_content=["pickle", "json"])
    assert app.control.ping(limit=1, timeout=DEADLINE)


@asynccontextmanager
async def watched(url: str, *, by_events: bool) -> AsyncIterator[MerlinDatabase]:
    settings = Settings(broker=url, enable_task_events=True) if by_events else Settings()
    async with opened(make_backend(url, BackendOptions())) as database, open_work(settings, database):
        await until(lambda: database.observations.has(Source.CELERY_RESULTS))
        await until(lambda: database.observations.has(Source.CELERY_EVENTS) is by_events)
        yield database


def progress(database: MerlinDatabase, run: Launched) -> Progress | None:
    record = database.read_model.runs.named(str(run.workspace))
    return None if record is None else database.runs.get(record.id).progress


async def reached(database: MerlinDatabase, run: Launched, done: int, counts: dict[TaskStatus, int]) -> None:
    await until(
        lambda: (known := progress(database, run)) is not None and known.done == done and known.counts == counts
    )


def in_files(run: Launched) -> dict[TaskStatus, int]:
    """How many tasks have each status, by the status files of a run that has ended."""
    steps = [
        step for path in run.workspace.rglob("MERLIN_STATUS.json") for step in json.loads(path.read_text()).values()
    ]
    tasks = [task for step in steps for task in step.values() if isinstance(task, dict) and "return_code" in task]
    return Counter(STATUSES[task["status"]] for task in tasks)


async def test_soft_and_hard_failures_and_a_second_try(tmp_path: Path) -> None:
    """By events from the start, by events from the middle on, and by result keys alone: all agree with the files."""
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no Redis server is installed here")
    with (
        RedisServer.start(binary, tmp_path / "database") as server,
        MerlinSite(tmp_path / "home", server.url) as site,
        server.client() as client,
        client.pubsub(ignore_subscribe_messages=True) as requests,
    ):
        await site.work()
        requests.subscribe("/0.celery.pidbox")
        async with watched(server.url, by_events=True) as from_start:
            await until(lambda: requests.get_message() is not None)
            await asyncio.to_thread(ping, server.url)
            run = await site.run()
            await reached(from_start, run, 2, {SUCCEEDED: 1, FAILED: 1, RUNNING: 2})
            async with (
                watched(server.url, by_events=True) as from_middle,
                watched(server.url, by_events=False) as without_events,
            ):
                await reached(from_middle, run, 2, {UNKNOWN: 2})
                await reached(without_events, run, 2, {UNKNOWN: 2})
                site.let_all()
                await reached(from_start, run, 5, {SUCCEEDED: 3, FAILED: 2})
                await reached(from_middle, run, 5, {SUCCEEDED: 2, FAILED: 1, UNKNOWN: 2})
                await reached(without_events, run, 5, {UNKNOWN: 5})
                await until(lambda: in_files(run) == {SUCCEEDED: 3, FAILED: 2})
