"""How many messages wait in the queues of a RabbitMQ. Skipped where neither it nor the extra `amqp` is installed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.database.errors import BackendUnavailableError
from server.database.observations import QueueLength
from server.database.workspaces import Source
from server.work import amqp_queues as module
from server.work import broker as broker_module
from server.work import queues
from server.work.amqp_queues import amqp_queues
from server.work.broker import BrokerError, make_broker
from server.work.queues import BrokerQueues
from tests.support.asking import ask
from tests.support.live import until
from tests.support.rabbitmq import RabbitServer, rabbitmq_server
from tests.support.records import run
from tests.support.servers import TlsFiles
from tests.support.subscribers import copy_of

SCRIPT = rabbitmq_server()
HAS_EXTRA = importlib.util.find_spec("amqp") is not None
Q = "[merlin]_sim_q"

pytestmark = pytest.mark.anyio
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason="merlin-graphql[amqp] is not installed")
needs_rabbitmq = pytest.mark.skipif(
    SCRIPT is None or not HAS_EXTRA, reason="no RabbitMQ here, or no merlin-graphql[amqp]"
)


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    assert SCRIPT is not None
    with RabbitServer.start(SCRIPT, tmp_path_factory.mktemp("rabbitmq") / "node") as server:
        yield server


@contextlib.contextmanager
def channel_of(server: RabbitServer) -> Iterator[Any]:
    """A channel of kombu, as Celery opens it."""
    kombu: Any = pytest.importorskip("kombu")
    with kombu.Connection(server.url) as connection, connection.channel() as channel:
        yield channel


@needs_rabbitmq
async def test_messages_and_consumers_are_counted(rabbitmq: RabbitServer) -> None:
    """Of each queue, whatever its arguments; one that does not exist is empty, and is not made by the question."""
    with channel_of(rabbitmq) as channel:
        channel.queue_declare(queue=Q, durable=True, auto_delete=False, arguments={"x-max-priority": 10})
        for priority in (1, 5, 9):
            channel.basic_publish(channel.prepare_message(b"{}", priority=priority), exchange="", routing_key=Q)
        channel.queue_declare(queue="served", auto_delete=False)
        channel.basic_consume("served", no_ack=True, callback=print, consumer_tag="one")
        channel.queue_declare(queue="own", exclusive=True)
        names = ["missing", Q, "gone", "own", "served", "x" * 256]
        async with amqp_queues(make_broker(rabbitmq.url)) as asked:
            for _ in range(2):
                lengths = await asked(names)
                known = {name: lengths.get(name) for name in names}
                assert known == {
                    "missing": QueueLength(0, 0),
                    Q: QueueLength(3, 0),
                    "gone": QueueLength(0, 0),
                    "own": QueueLength(),
                    "served": QueueLength(0, 1),
                    "x" * 256: None,
                }


@needs_rabbitmq
async def test_the_login_is_checked(rabbitmq: RabbitServer) -> None:
    """The password may stand beside the URL; a wrong one is told without repeating it."""
    url = rabbitmq.url.replace("guest:guest@", "guest:s3cr3t@")
    async with amqp_queues(make_broker(url, "guest")) as asked:
        assert await asked(["none"]) == {"none": QueueLength(0, 0)}
    for wrong in (url, rabbitmq.url.replace("%2F", "no-such-host")):
        with pytest.raises(BackendUnavailableError, match=r"Can't ask the broker amqp://127\.0\.0\.1:") as caught:
            async with amqp_queues(make_broker(wrong)):
                pass
        assert "s3cr3t" not in str(caught.value)


@needs_rabbitmq
async def test_tls_is_verified(tmp_path: Path) -> None:
    """By the certificates that the URL names; without them the broker is refused, unless it says so."""
    assert SCRIPT is not None
    files = TlsFiles.create(tmp_path / "tls")
    with RabbitServer.start(SCRIPT, tmp_path / "node", files) as server:
        client = f"&ssl_certfile={files.certificate}&ssl_keyfile={files.key}"
        for options in (f"ssl_ca_certs={files.ca}", f"ssl_ca_certs={files.ca}{client}", "ssl_cert_reqs=none"):
            async with amqp_queues(make_broker(f"{server.url}?{options}")) as asked:
                assert await asked(["none"]) == {"none": QueueLength(0, 0)}
        with pytest.raises(BackendUnavailableError, match="Can't ask the broker amqps://"):
            async with amqp_queues(make_broker(server.url)):
                pass


@needs_rabbitmq
async def test_an_outage_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lengths are unknown while RabbitMQ is away."""
    assert SCRIPT is not None
    for name in ("_INTERVAL", "_FIRST_PAUSE", "_LAST_PAUSE"):
        monkeypatch.setattr(queues, name, 0.02)
    database = copy_of(run(1, queues=(Q,)))
    asked = "{ queues { waiting consumers } }"
    with RabbitServer.start(SCRIPT, tmp_path / "node") as server:
        task = asyncio.create_task(BrokerQueues(make_broker(server.url), database).run())
        await until(lambda: database.observations.has(Source.BROKER_QUEUES))
        assert await ask(database, asked) == {"queues": [{"waiting": 0, "consumers": 0}]}
        server.kill()
        await until(lambda: not database.observations.has(Source.BROKER_QUEUES))
        assert await ask(database, asked) == {"queues": [{"waiting": None, "consumers": None}]}
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@needs_extra
async def test_nobody_listens() -> None:
    """The message names the broker."""
    with pytest.raises(BackendUnavailableError, match=r"Can't ask the broker amqp://127\.0\.0\.1:1/v"):
        async with amqp_queues(make_broker("amqp://u:p@127.0.0.1:1/v")):
            pass


@needs_extra
async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is no RabbitMQ."""
    monkeypatch.setattr(module, "_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BackendUnavailableError, match=r"timed out|Timeout"):
            async with amqp_queues(make_broker(f"amqp://u:p@127.0.0.1:{port}/v")):
                pass


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and not at the first question."""
    monkeypatch.setattr(broker_module, "find_spec", lambda _name: None)
    with pytest.raises(BrokerError, match=r"pipx install 'merlin-graphql\[amqp\]'"):
        make_broker("amqp://u:p@h/v")
