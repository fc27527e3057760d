"""What real workers of Merlin tell of themselves, beside what its records say of them."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.redis_client import RedisClients
from server.database.entities import PhysicalWorkerEntity
from server.database.merlin_database import MerlinDatabase, opened
from server.database.workspaces import Source
from server.work.celery_events import CeleryEvents
from server.work.celery_messages import TaskEvent
from server.work.task_event_requests import TaskEventRequests
from server.work.watching import watching
from tests.support.asking import ask
from tests.support.live import until
from tests.support.merlin_site import MerlinSite
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

ENABLE = b"enable_events"
WORKERS = """{
  physicalWorkers { nodes { name status pid isAlive livePid } }
  liveWorkers { name pid isAlive physicalWorker { name } }
}"""


async def test_workers_that_die_and_come_back(tmp_path: Path) -> None:
    """Started, killed, relaunched, overlapping and stopped: what is shown is what happened, whatever the record says.

    Workers that run without `-E` send events of tasks once they are asked to.
    """
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no Redis server is installed here")
    told: list[TaskEvent] = []
    with (
        RedisServer.start(binary, tmp_path / "database") as server,
        MerlinSite(tmp_path / "home", server.url) as site,
        server.client() as client,
        client.pubsub() as listener,
    ):
        listener.subscribe("/0.celery.pidbox")
        listener.get_message(timeout=5)
        requests = Requests(listener)
        async with opened(make_backend(server.url, BackendOptions())) as database:
            clients = RedisClients(server.url)
            source = CeleryEvents(
                clients,
                database.observations,
                database.read_model,
                listeners=[told.extend],
                requests=TaskEventRequests(clients),
            )
            async with watching(database.observations, [source]):
                await until(lambda: database.observations.has(Source.CELERY_EVENTS))
                await site.work()
                await until(lambda: bool(database.physical_workers.all()))
                worker = worker_of(database)
                await until(lambda: worker_of(database).is_alive is True)
                assert worker.live_pid == worker.pid

                run = await site.run()
                await until(lambda: requests.count() == 2)  # at the start, and when the worker listened
                site.let_all()
                three = str(run.workspace / "three")
                await until(lambda: any(event.uuid == three and event.result == "0" for event in told))

                await site.die()
                ended = time.monotonic()
                await until(lambda: worker_of(database).is_alive is False)
                assert time.monotonic() - ended < 10
                assert (worker_of(database).status, worker_of(database).live_pid) == ("RUNNING", None)

                await site.work()
                await until(lambda: worker_of(database).is_alive is True)
                assert worker_of(database).live_pid not in (None, worker.pid)

                await site.work(site.overlap_spec)
                await until(lambda: len(living(database)) == 2)
                shown = await ask(database, WORKERS)
                assert len(shown["physicalWorkers"]["nodes"]) == 1
                (unrecorded,) = [one for one in shown["liveWorkers"] if one["isAlive"] and not one["physicalWorker"]]
                assert "overlap" in unrecorded["name"]

                await site.rest()
                await until(lambda: not living(database))


class Requests:
    """Counts the requests to send events of tasks, among all commands to workers."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        self._count = 0

    def count(self) -> int:
        while (message := self._listener.get_message()) is not None:
            self._count += ENABLE in b64decode(json.loads(message["data"])["body"])
        return self._count


def worker_of(database: MerlinDatabase) -> PhysicalWorkerEntity:
    (worker,) = database.physical_workers.all()
    return worker


def living(database: MerlinDatabase) -> list[str]:
    return [worker.name for worker in database.observations.workers() if worker.is_alive]
