"""The copy in pauses of Redis and Valkey: stale while they last; nothing is listed where nothing was missed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from server.database import feed
from server.database.backends import redis_heartbeat, redis_replies
from server.database.backends.factory import BackendOptions
from server.database.errors import BackendUnavailableError
from server.database.models import Key
from tests.support.feeds import STUDY, holds, name, served, tracking, until
from tests.support.records import study, uid
from tests.support.servers import RedisServer
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio


async def test_a_pause_of_the_server_is_told_and_costs_no_listing(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that does not answer is stale; when it goes on nothing is listed, since nothing was missed."""
    monkeypatch.setattr(redis_heartbeat, "HEARTBEAT", 0.1)
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        writer.create(study(1))
        async with served(server.url) as database:
            listed, connections = scans(writer), tracking(writer)
            with paused(server):
                await until(lambda: database.stale_since)
                assert "does not answer now" in caplog.text
                assert (database.feed.is_waiting, database.is_lost) == (True, False)
                monkeypatch.setattr(feed, "_GRACE", 0.0)
                assert (database.feed.is_waiting, database.is_lost) == (False, True)
                assert holds(database, study(1))
            await until(lambda: database.stale_since is None)
            assert database.feed.settled.is_set()
            writer.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))
            assert scans(writer) == listed
            assert tracking(writer) == connections
            assert database.feed.reconnects == 0


async def test_what_was_changed_before_a_pause_is_read_after_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that reads is given up in a long pause, and what it should have read is read on the next one."""
    monkeypatch.setattr(redis_heartbeat, "HEARTBEAT", 0.1)
    monkeypatch.setattr(redis_replies, "TIMEOUT", 0.3)
    with closing(RedisWriter(redis_server.url)) as writer:
        async with served(redis_server.url) as database:
            listed = scans(writer)
            with paused(redis_server):
                with pytest.raises(BackendUnavailableError):
                    await database.feed.refresh([Key(STUDY, uid(1))])
                assert database.stale_since
                writer.client.connection_pool.reset()
                late = asyncio.create_task(asyncio.to_thread(writer.create, study(1), study(2)))
            await late
            await until(lambda: holds(database, study(1), study(2)))
            await until(lambda: database.stale_since is None)
            assert scans(writer) == listed


async def test_a_connection_that_only_reads_is_no_loss(redis_server: RedisServer) -> None:
    """Where the connection of the notices stands, nothing is listed again, whatever happens to the others."""
    with closing(RedisWriter(redis_server.url)) as writer:
        writer.create(study(1))
        async with served(redis_server.url) as database:
            listed, (followed,) = scans(writer), tracking(writer)
            for number in range(2, 5):
                for client in writer.client.client_list():
                    if client["id"] not in (followed, str(writer.client.client_id())):
                        writer.client.client_kill_filter(_id=client["id"])
                writer.create(study(number))
                await until(lambda n=number: name(database, n))  # type: ignore[misc]
                await until(lambda: database.stale_since is None)
            assert scans(writer) == listed
            assert tracking(writer) == [followed]


async def test_a_server_that_is_silent_for_long_is_lost(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience ends, as a connection may be half open. Then everything is listed, once."""
    monkeypatch.setattr(redis_heartbeat, "HEARTBEAT", 0.1)
    monkeypatch.setattr(redis_heartbeat, "PATIENCE", 0.3)
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        writer.create(study(1))
        async with served(server.url) as database:
            listed = scans(writer)
            with paused(server):
                await until(lambda: database.is_lost)
                assert holds(database, study(1))
            await until(lambda: database.stale_since is None)
            assert scans(writer) == 2 * listed
            writer.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))


async def test_a_long_script_is_an_outage(binary: Path, tmp_path: Path) -> None:
    """Nothing can be read meanwhile, so the copy is stale and says so; nothing is polled for then or later."""
    with (
        RedisServer.start(binary, tmp_path, None, "--lua-time-limit", "50") as server,
        closing(RedisWriter(server.url)) as writer,
        closing(RedisWriter(server.url)) as other,
    ):
        async with served(server.url, BackendOptions(poll_interval=3600)) as database:
            listed = scans(writer)
            script = asyncio.create_task(asyncio.to_thread(other.client.eval, "while true do end", 0))
            await until(lambda: database.stale_since)
            assert not database.backend.is_polling
            await until(lambda: has_ended(writer))
            with pytest.raises(redis.ResponseError, match="killed"):
                await script
            await until(lambda: database.stale_since is None)
            assert not database.backend.is_polling
            assert scans(writer) == listed
            writer.create(study(1))
            await until(lambda: holds(database, study(1)))


def has_ended(writer: RedisWriter) -> bool:
    """The script, once it is known as one that takes long."""
    return bool(writer.client.script_kill())


@contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def scans(writer: RedisWriter) -> int:
    """How often keys were listed, page by page."""
    return int(writer.client.info("commandstats")["cmdstat_scan"]["calls"])
