"""The copy follows Redis and Valkey: their notices, their losses, their restarts."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import BackendUnavailableError
from server.database.merlin_database import opened
from server.database.models import Key
from server.database.read_model import Change
from tests.support.feeds import DEADLINE, RUN, STUDY, holds, name, owner, served, tracking, until
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer, binaries
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio


BINARIES = binaries()


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return BINARIES[request.param]


async def test_the_owner_of_a_name_follows_the_map(redis_server: RedisServer) -> None:
    """Whoever is written into Merlin's name map is found by the name from then on."""
    with closing(RedisWriter(redis_server.url)) as writer:
        writer.create(study(1, "twin"), study(2, "twin"))
        async with served(redis_server.url) as database:
            assert owner(database) == uid(2)
            for number in (1, 2, 1):
                writer.client.hset("study:name", "twin", uid(number))
                await until(lambda n=number: owner(database) == uid(n))  # type: ignore[misc]


@pytest.mark.parametrize("command", ["flushall", "flushdb"])
async def test_a_flush_of_the_server_is_seen(redis_server: RedisServer, command: str) -> None:
    """Both ways to empty a Redis empty the copy, and an emptied other database does not."""
    with (
        closing(RedisWriter(redis_server.url_for(database=3))) as elsewhere,
        closing(RedisWriter(redis_server.url)) as writer,
    ):
        writer.create(study(1))
        async with served(redis_server.url) as database:
            elsewhere.create(study(2))
            elsewhere.client.flushdb()
            writer.create(study(3))
            await until(lambda: holds(database, study(1), study(3)))
            getattr(writer.client, command)()
            await until(lambda: holds(database))


async def test_other_databases_of_the_server_are_not_followed(redis_server: RedisServer) -> None:
    """A record that is written into another database number never comes here."""
    with (
        closing(RedisWriter(redis_server.url_for(database=3))) as elsewhere,
        closing(RedisWriter(redis_server.url)) as writer,
    ):
        writer.create(study(1))
        async with served(redis_server.url) as database:
            elsewhere.create(study(1, "elsewhere"), study(2))
            elsewhere.delete(Key(STUDY, uid(1)))
            writer.create(study(3))
            await until(lambda: name(database, 3))
            assert holds(database, study(1), study(3))


async def test_a_dead_server_is_outlived(binary: Path, tmp_path: Path) -> None:
    """While the server is dead reads go on, marked; back with other data, the differences are told as changes."""
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        writer.create(study(1), study(2), run(3))
        async with served(server.url) as database:
            told: list[Change] = []
            database.read_model.listen(lambda _, changes: told.extend(changes))
            before = datetime.now(UTC)
            server.kill()
            await until(lambda: database.stale_since)
            assert database.stale_since is not None
            assert before.timestamp() - 5 < database.stale_since.timestamp() <= datetime.now(UTC).timestamp()
            assert holds(database, study(1), study(2), run(3))
            with pytest.raises(BackendUnavailableError):
                await database.feed.refresh([Key(STUDY, uid(1))])
            assert holds(database, study(1), study(2), run(3))
            assert told == []
            server.restart()
            writer.create(study(2, "changed"), run(4))
            await until(lambda: holds(database, study(2, "changed"), run(4)))
            await until(lambda: database.stale_since is None)
            writer.create(run(5))
            await until(lambda: holds(database, study(2, "changed"), run(4), run(5)))
        last = {change.key: change.after for change in told}
        assert last == {
            Key(STUDY, uid(1)): None,
            Key(STUDY, uid(2)): study(2, "changed"),
            Key(RUN, uid(3)): None,
            Key(RUN, uid(4)): run(4),
            Key(RUN, uid(5)): run(5),
        }


async def test_a_cut_connection_is_made_again(redis_server: RedisServer) -> None:
    """Whoever kills the connection of the notices keeps no change from us."""
    with closing(RedisWriter(redis_server.url)) as writer:
        async with served(redis_server.url) as database:
            for number in range(3):
                (connection,) = await_tracking(writer)
                writer.client.client_kill_filter(_id=connection)
                writer.create(study(number))
                await until(lambda n=number: name(database, n))  # type: ignore[misc]
                await until(lambda: database.stale_since is None and tracking(writer))


def await_tracking(writer: RedisWriter) -> list[str]:
    deadline = time.monotonic() + DEADLINE
    while not (found := tracking(writer)):
        assert time.monotonic() < deadline
    return found


@pytest.mark.parametrize("refusal", ["user", "hello", "client", "hello on a socket"])
async def test_a_server_that_refuses_to_tell_is_polled(
    binary: Path, tmp_path: Path, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without permission or command for notices, changes are found by looking; it is said once."""
    arguments: tuple[str, ...] = ()
    if refusal != "user":
        arguments = ("--rename-command", refusal.partition(" ")[0].upper(), "")
    users = {"deaf": "on >secret ~* &* +@all -client|tracking"}
    with (
        RedisServer.start(binary, tmp_path, None, *arguments, users=users) as server,
        closing(RedisWriter(server.url)) as writer,
    ):
        writer.create(study(1))
        url = {"user": server.url_for("deaf", "secret"), "hello on a socket": server.unix_url}.get(refusal, server.url)
        async with served(url, BackendOptions(poll_interval=0.05)) as database:
            assert holds(database, study(1))
            writer.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))
            writer.delete(Key(STUDY, uid(1)))
            await until(lambda: holds(database, study(2)) and database.stale_since is None)
            assert [record.message for record in caplog.records if "polled" in record.message] == [
                record.message for record in caplog.records if record.levelno >= logging.WARNING
            ]
            assert len([record for record in caplog.records if "polled" in record.message]) == 1
            if refusal == "user":
                writer.client.acl_setuser("deaf", enabled=True, commands=["+client|tracking"])
                await until(lambda: tracking(writer))
                writer.create(study(3))
                await until(lambda: holds(database, study(2), study(3)))


async def test_notices_are_asked_for_again_soon(binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal of a moment is not answered by polling for long: the next poll would be in an hour."""
    caplog.set_level(logging.INFO)
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        async with served(server.url, BackendOptions(poll_interval=3600)) as database:
            assert not database.backend.is_polling
            writer.client.acl_setuser("default", enabled=True, nopass=True, commands=["-client|tracking"])
            writer.client.client_kill_filter(_id=await_tracking(writer)[0])
            await until(lambda: database.backend.is_polling)
            await until(lambda: database.stale_since is None)
            writer.client.acl_setuser("default", enabled=True, nopass=True, commands=["+client|tracking"])
            writer.create(study(1))
            await until(lambda: holds(database, study(1)))
            assert not database.backend.is_polling
            writer.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))
    polled = [record.message for record in caplog.records if "polled" in record.message]
    assert len(polled) == 2
    assert polled[0].endswith("Changes are polled for instead.")
    assert polled[1].endswith("tells of changes again: they are not polled for any more.")


async def test_a_polled_server_that_dies_is_noticed(binary: Path, tmp_path: Path) -> None:
    """Where changes are polled for, a lost server is stale and comes back, too."""
    users = {"deaf": "on >secret ~* &* +@all -client|tracking"}
    with (
        RedisServer.start(binary, tmp_path, users=users) as server,
        closing(RedisWriter(server.url)) as writer,
    ):
        async with served(server.url_for("deaf", "secret"), BackendOptions(poll_interval=0.05)) as database:
            server.kill()
            await until(lambda: database.stale_since)
            server.restart()
            writer.create(study(1))
            await until(lambda: database.stale_since is None and holds(database, study(1)))


async def test_a_server_that_is_not_there_is_an_error(binary: Path, tmp_path: Path) -> None:
    """A start on a dead server raises, and leaves no task and no connection behind."""
    with RedisServer.start(binary, tmp_path) as server:
        server.kill()
        tasks = asyncio.all_tasks()
        with pytest.raises(BackendUnavailableError):
            async with served(server.url):
                pass
        assert asyncio.all_tasks() == tasks
        gc.collect()


async def test_a_server_that_dies_during_the_start_is_an_error(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start whose first list fails raises, whenever that is, and leaves nothing behind."""
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        for step in ("get_version", "dbsize"):
            server.restart()
            writer.create(*(run(number) for number in range(1200)))
            backend = make_backend(server.url, BackendOptions())
            target = backend if step == "get_version" else backend._client  # type: ignore[attr-defined]
            original = getattr(target, step)

            async def die_after(original: Callable[[], object] = original) -> object:
                result = await original()  # type: ignore[misc]
                server.kill()
                return result

            monkeypatch.setattr(target, step, die_after)
            tasks = asyncio.all_tasks()
            with pytest.raises(BackendUnavailableError):
                async with opened(backend):
                    pass
            assert asyncio.all_tasks() == tasks
            gc.collect()
