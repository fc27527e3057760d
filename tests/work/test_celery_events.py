"""Tests the source CELERY_EVENTS on real servers, with messages that Celery's own code publishes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.redis_client import RedisClients
from server.database.backends.tls import TLS
from server.database.merlin_database import MerlinDatabase, opened
from server.database.observations import LiveWorker
from server.database.read_model import Change
from server.database.workspaces import Source
from server.work import celery_events
from server.work.celery_events import CeleryEvents
from server.work.celery_messages import TaskEvent
from server.work.task_event_requests import TaskEventRequests
from server.work.watching import watching
from tests.support.backends import BINARIES, SECRET
from tests.support.celery_events import fake_worker
from tests.support.live import until
from tests.support.records import memory_of, physical_worker, uid
from tests.support.servers import RedisServer, TlsFiles, supports_tls

pytestmark = pytest.mark.anyio

NAME = "celery@sim.%node1"
EVENTS = Source.CELERY_EVENTS
MAY_SEND = {"psubscribe", "ping", "auth", "hello", "client|setinfo", "select"}


@pytest.fixture(scope="module", params=BINARIES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer.start(BINARIES[request.param], tmp_path_factory.mktemp("broker")) as server:
        yield server


@asynccontextmanager
async def hearing(
    url: str, *, tls: TLS | None = None, password: str | None = None, asks: bool = False, **options: Any
) -> AsyncIterator[MerlinDatabase]:
    """A database with one worker, beside which the broker's events are heard."""
    async with opened(await memory_of(physical_worker(21, NAME))) as database:
        clients = RedisClients(url, password, tls)
        requests = TaskEventRequests(clients) if asks else None
        source = CeleryEvents(clients, database.observations, database.read_model, requests=requests, **options)
        async with watching(database.observations, [source]):
            yield database


@asynccontextmanager
async def heard(url: str, **options: Any) -> AsyncIterator[MerlinDatabase]:
    """The same, once somebody listens."""
    async with hearing(url, **options) as database:
        await until(lambda: database.observations.has(EVENTS))
        yield database


def states(database: MerlinDatabase) -> list[tuple[str, str | None, bool]]:
    return [(worker.name, worker.pid, worker.is_alive) for worker in database.observations.workers()]


def live(database: MerlinDatabase) -> LiveWorker | None:
    return database.observations.worker(NAME)


def is_alive(database: MerlinDatabase) -> bool | None:
    return database.physical_workers.get(uid(21)).is_alive


async def test_a_workers_life(server: RedisServer) -> None:
    """A start, beats and a stop are heard, and those who follow the worker hear of what changes."""
    async with heard(server.url) as database:
        told: list[Change] = []
        database.read_model.listen(lambda _, changes: told.extend(changes))
        assert is_alive(database) is None
        with fake_worker(server.url, NAME) as worker:
            worker.say("worker-online")
            await until(lambda: is_alive(database) is True)
            worker.say("worker-heartbeat", active=1, processed=3)
            await until(lambda: database.physical_workers.get(uid(21)).active_tasks == 1)
            before = len(told)
            worker.say("worker-heartbeat", active=1, processed=4)
            await until(lambda: database.physical_workers.get(uid(21)).processed_tasks == 4)
            assert len(told) == before
            known = live(database)
            assert known is not None
            assert known == LiveWorker(NAME, str(os.getpid()), True, known.last_seen_at, 1, 4, (0.5, 0.25, 0.125))
            worker.say("worker-offline")
            await until(lambda: is_alive(database) is False)
            assert {(change.key.id, change.observed) for change in told} == {(uid(21), True)}


async def test_processes(server: RedisServer) -> None:
    """Those that no record names are heard, too, and two of one name are told apart."""
    async with heard(server.url) as database:
        with fake_worker(server.url, "celery@other.%node1") as worker:
            for worker.pid in (1, 2):
                worker.say("worker-online")
            await until(lambda: len(states(database)) == 2)
            worker.say("worker-offline")
            await until(lambda: not states(database)[1][2])
            assert states(database) == [("celery@other.%node1", "1", True), ("celery@other.%node1", "2", False)]
            assert database.observations.worker_count == 2


async def test_a_record_that_comes_later(server: RedisServer) -> None:
    """Matching is by name when it is read: a worker may be recorded after its first beat."""
    async with heard(server.url) as database:
        with fake_worker(server.url, "celery@late.%node1") as worker:
            worker.say("worker-heartbeat")
            await until(lambda: database.observations.worker_count == 1)
            await database.backend.insert([physical_worker(22, "celery@late.%node1")])
            await until(lambda: database.physical_workers.by_id(uid(22)) is not None)
            assert database.physical_workers.get(uid(22)).is_alive is True


async def test_task_events(server: RedisServer) -> None:
    """Whoever listens gets the events of tasks, in their order."""
    told: list[Sequence[TaskEvent]] = []
    async with heard(server.url, listeners=[told.append]):
        with fake_worker(server.url, NAME) as worker:
            worker.say("task-started", uuid="/studies/a_1/one")
            worker.say("task-succeeded", uuid="/studies/a_1/one", result="0", runtime=1.5)
            worker.flush()
            await until(lambda: bool(told))
    ((started, succeeded),) = told
    assert (started.type, started.uuid) == ("task-started", "/studies/a_1/one")
    assert (succeeded.type, succeeded.result, succeeded.runtime) == ("task-succeeded", "0", 1.5)


async def test_databases_and_prefixes(server: RedisServer) -> None:
    """Each database of a Redis is a broker of its own, and so is each prefix of its keys."""
    async with heard(server.url_for(database=3), key_prefix="a[*]b") as database:
        elsewhere = [
            (server.url_for(database=0), {}),
            (server.url_for(database=3), {}),
            (server.url_for(database=3), {"global_keyprefix": "aXb"}),
            (server.url_for(database=3), {"global_keyprefix": "a[*]b"}),
        ]
        for number, (url, options) in enumerate(elsewhere):
            with fake_worker(url, f"celery@w{number}", **options) as worker:
                worker.say("worker-heartbeat")
        await until(lambda: bool(states(database)))
        assert [name for name, _, _ in states(database)] == ["celery@w3"]


async def test_hostile_messages(server: RedisServer) -> None:
    """They are counted, and what comes after them is heard."""
    async with heard(server.url) as database:
        with server.client() as client:
            for message in ("", "{}", b"\x80\x04\x95", b"\xff" * 100, "[" * 10_000, "x" * 2**21):
                client.publish("/0.celeryev/worker.heartbeat", message)
        with fake_worker(server.url, NAME) as worker:
            worker.say("worker-heartbeat")
        await until(lambda: is_alive(database) is True)
        assert database.observations.ignored == {EVENTS: 6}


async def test_a_flood_of_names(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names beyond those that are remembered are counted as ignored."""
    monkeypatch.setattr("server.work.living_workers.MAX_PROCESSES", 10)
    async with heard(server.url) as database:
        with fake_worker(server.url, NAME) as worker:
            for worker.pid in range(1, 16):
                worker.say("worker-heartbeat")
        await until(lambda: database.observations.ignored[EVENTS] == 5)
        await until(lambda: database.observations.worker_count == 10)


async def test_a_broker_that_comes_back(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """While it is away nobody is declared dead: it is unknown who lives. It is logged once, and heard again later."""
    caplog.set_level(logging.INFO, celery_events.LOG.name)
    async with heard(server.url) as database:
        told: list[Change] = []
        with fake_worker(server.url, NAME) as worker:
            worker.say("worker-heartbeat")
        await until(lambda: is_alive(database) is True)
        database.read_model.listen(lambda _, changes: told.extend(changes))
        server.kill()
        await until(lambda: not database.observations.has(EVENTS))
        await until(lambda: bool(told))
        assert is_alive(database) is None
        assert live(database) is not None
        server.restart()
        await until(lambda: database.observations.has(EVENTS))
        assert is_alive(database) is True
        with fake_worker(server.url, NAME) as worker:
            worker.say("worker-offline")
        await until(lambda: is_alive(database) is False)
        assert {change.key.id for change in told} == {uid(21)}
    levels = [record.levelno for record in caplog.records if record.name == celery_events.LOG.name]
    assert logging.INFO in levels
    assert levels.count(logging.WARNING) <= 3  # the end of the connection, and in what ways another one fails


async def test_a_broker_that_is_not_there(server: RedisServer) -> None:
    """The server starts without it, and hears it once it is there."""
    server.kill()
    async with hearing(server.url) as database:
        await asyncio.sleep(0)
        assert not database.observations.has(EVENTS)
        server.restart()
        await until(lambda: database.observations.has(EVENTS))


async def test_a_silent_broker(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is cut without a word is noticed by the lack of answers, and made anew."""
    monkeypatch.setattr(celery_events, "HEARTBEAT", 0.05)
    monkeypatch.setattr("server.database.backends.redis_heartbeat.PATIENCE", 0.3)
    async with heard(server.url) as database:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await until(lambda: not database.observations.has(EVENTS))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await until(lambda: database.observations.has(EVENTS))


async def test_commands(server: RedisServer) -> None:
    """Nothing is sent but what it takes to listen."""
    with server.client() as client:
        client.config_resetstat()
        async with heard(server.url) as database:
            client.publish("/0.celeryev/worker.heartbeat", "{}")
            await until(lambda: database.observations.ignored[EVENTS] == 1)
            await until(lambda: calls(client).get("ping", 0) > 0)
        sent = calls(client)
    assert sent.pop("publish") == 1
    assert sent.keys() <= MAY_SEND | {"config|resetstat", "info"}


def calls(client: Any) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}


async def test_a_password_and_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broker is reached as the database is; a refusal is logged, without the password."""
    binary = next((binary for binary in BINARIES.values() if supports_tls(binary)), None)
    if binary is None:
        pytest.skip("no server with TLS is installed here")
    files = TlsFiles.create(tmp_path / "tls")
    tls = TLS(ca_certs=str(files.ca))
    with RedisServer.start(binary, tmp_path / "server", password=SECRET, tls=files) as server:
        async with heard(server.url_for(), password=SECRET, tls=tls):
            pass
        async with hearing(server.url_for(), password=f"{SECRET}x", tls=tls) as database:
            await until(lambda: "refuses the login" in caplog.text)
            assert not database.observations.has(EVENTS)
    assert SECRET not in caplog.text


async def test_few_rights(tmp_path: Path) -> None:
    """A login that may do nothing but listen is enough, as docs/work.md says."""
    rights = "on >secret resetchannels &/0.celeryev/* -@all +psubscribe +ping +select"
    binary = next(iter(BINARIES.values()))
    with RedisServer.start(binary, tmp_path, users={"ear": rights}) as server:
        async with heard(server.url_for("ear", "secret")) as database:
            with fake_worker(server.url, NAME) as worker:
                worker.say("worker-heartbeat")
            await until(lambda: is_alive(database) is True)


async def test_requests_for_task_events(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, workers are asked for events of tasks, in Celery's words: at once, and when one starts."""
    monkeypatch.setattr("server.work.task_event_requests._START", 0.01)
    with server.client() as client, client.pubsub() as listener:
        listener.psubscribe("*pidbox*")
        listener.get_message(timeout=5)
        async with heard(server.url, asks=True):
            first = await asyncio.to_thread(next_message, listener)
            with fake_worker(server.url, NAME) as worker:
                worker.say("worker-online")
            second = await asyncio.to_thread(next_message, listener)
        with fake_worker(server.url, NAME) as worker:
            worker._app.conf.task_serializer = "pickle"  # as Merlin has it
            worker._app.control.enable_events()
        expected = next_message(listener)
    for message in (first, second):
        for name in ("channel", "body", "content-type", "content-encoding"):
            assert message[name] == expected[name]
        assert message["properties"].keys() == expected["properties"].keys()


def next_message(listener: Any) -> dict[str, Any]:
    message = listener.get_message(timeout=10)
    assert message is not None
    return {"channel": message["channel"], **json.loads(message["data"])}
