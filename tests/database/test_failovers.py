"""Failovers of Redis under Sentinel: they are followed, and what they lose is told."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis

from server.database.backends import redis_client
from server.database.errors import BackendError
from server.database.tasks import end_tasks
from tests.support.feeds import holds, name, served, until
from tests.support.records import run, study, uid
from tests.support.sentinels import fail_over, fails_over, frozen, three_sentinels
from tests.support.servers import RedisServer, Sentinel, binaries
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio


BINARIES = binaries()


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return BINARIES[request.param]


def tracking(writer: RedisWriter) -> list[str]:
    return [client["id"] for client in writer.client.client_list() if "t" in client["flags"]]


async def test_a_failover_is_followed(binary: Path, tmp_path: Path) -> None:
    """When the sentinels name another master its writes are seen, while the old one is still up."""
    with (
        RedisServer.start(binary, tmp_path / "a") as first,
        RedisServer.start(binary, tmp_path / "b", replica_of=first) as second,
        Sentinel.start(binary, tmp_path / "s", first) as sentinel,
        closing(RedisWriter(first.url)) as old,
        closing(RedisWriter(second.url)) as new,
        closing(RedisWriter(f"redis://127.0.0.1:{sentinel.port}")) as boss,
    ):
        sentinel.wait_for_replicas(1)
        old.create(study(1))
        async with served(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster/0") as database:
            old.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))
            await until(lambda: new.client.exists(f"study:{uid(2)}"))
            await until(lambda: fails_over(boss), 20)
            await until(lambda: sentinel.master_address()[1] == second.port, 20)
            new.create(study(3))
            took = await until(lambda: holds(database, study(1), study(2), study(3)))
            await until(lambda: database.stale_since is None)
            new.create(study(4))
            await until(lambda: name(database, 4))
    print(f"from failover to copy: {took:.2f} s")


async def test_a_frozen_sentinel_delays_nobody(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of three does not answer, and would be waited for longer than this test may take."""
    monkeypatch.setitem(redis_client._TIMEOUTS, "socket_timeout", 3600)
    async with three_sentinels(binary, tmp_path) as (first, second, sentinels):
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{it.port}' for it in sentinels)}/mymaster/0"
        with closing(RedisWriter(first.url)) as old, closing(RedisWriter(second.url)) as new:
            async with served(url) as database, frozen(sentinels[0]):
                old.create(study(1))
                await until(lambda: holds(database, study(1)))
                await until(lambda: new.client.exists(f"study:{uid(1)}"))
                await fail_over(sentinels[1], second)
                await until(lambda: tracking(new), 15)
                new.create(study(2))
                await until(lambda: holds(database, study(1), study(2)) and database.stale_since is None)
                async with served(url) as other:  # one that begins meanwhile
                    assert holds(other, study(1), study(2))


async def test_a_failover_of_a_busy_master_is_followed(binary: Path, tmp_path: Path) -> None:
    """Notices never cease: the old master tells of what it copies from the new one. Writes go to the new one, too."""
    async with three_sentinels(binary, tmp_path) as (first, second, sentinels):
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{it.port}' for it in sentinels)}/mymaster/0"
        with closing(RedisWriter(first.url)) as old, closing(RedisWriter(second.url)) as new:
            async with served(url) as database:
                await database.studies.create("before")  # by a connection of the writer, which stays
                await until(lambda: new.client.hexists("study:name", "before"))
                await fail_over(sentinels[0], second)
                await until(lambda: has_written(new) and tracking(new), 15)
                assert not tracking(old)
                await database.studies.create("after")
                assert new.client.hexists("study:name", "after")
                await until(lambda: database.stale_since is None)


async def test_a_failover_is_followed_as_soon_as_a_sentinel_tells(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question that is asked now and then is not needed: here it is asked once an hour."""
    monkeypatch.setattr("server.database.backends.redis_client._SENTINEL_PAUSE", 3600.0)
    async with three_sentinels(binary, tmp_path) as (first, second, sentinels):
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{it.port}' for it in sentinels)}/mymaster/0"
        with closing(RedisWriter(first.url)) as old, closing(RedisWriter(second.url)) as new:
            async with served(url) as database:
                await until(lambda: all(has_listener(sentinel) for sentinel in sentinels))
                await database.studies.create("before")
                await until(lambda: new.client.hexists("study:name", "before"))
                await fail_over(sentinels[0], second)
                await until(lambda: tracking(new) and not tracking(old), 5)
                await database.studies.create("after")
                assert new.client.hexists("study:name", "after")


async def test_an_acknowledged_write_that_the_database_lost_is_told(
    binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server takes over the state of its former replica, which lacks the last write.

    What is there is not told, though another writer has changed it since.
    """
    caplog.set_level(logging.INFO)
    with (
        RedisServer.start(binary, tmp_path / "a") as first,
        RedisServer.start(binary, tmp_path / "b", replica_of=first) as second,
        closing(RedisWriter(first.url)) as old,
        closing(RedisWriter(second.url)) as new,
    ):
        async with served(first.url) as database:
            kept = (await database.studies.create("kept")).id
            await until(lambda: new.client.hexists("study:name", "kept"))
            new.client.replicaof("NO", "ONE")
            new.client.hset(f"study:{kept}", "additional_data", '{"by": "another"}')
            gone = (await database.studies.create("gone")).id
            assert database.studies.by_id(gone) is not None
            old.client.replicaof("127.0.0.1", str(second.port))
            await until(lambda: database.backend.lost_writes > 0, 20)
            await until(lambda: database.studies.by_id(gone) is None)
            assert database.studies.by_id(kept) is not None
            assert database.backend.lost_writes == 1
    told = [record for record in caplog.records if gone in record.getMessage()]
    assert {record.name.rpartition(".")[2] for record in told} == {"acknowledged", "audit"}
    assert kept not in "".join(record.getMessage() for record in told)


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.soak)], ids=["short", "long"])
async def test_each_acknowledged_write_is_there_or_told(
    binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, rounds: int
) -> None:
    """A healthy master with two replicas fails over under writes, again and again."""
    async with three_sentinels(binary, tmp_path, more_replicas=1) as (_, _, sentinels):
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{it.port}' for it in sentinels)}/mymaster/0"
        acknowledged: list[str] = []
        async with served(url) as database:

            async def write() -> None:
                for number in range(100_000):
                    try:
                        acknowledged.append((await database.studies.create(f"study {number}")).id)
                    except BackendError:  # refused, or of an unknown outcome: promises nothing
                        continue

            for _ in range(rounds):
                writing = [asyncio.create_task(write())]
                try:
                    await until_longer(acknowledged)
                    await fail_over(sentinels[0])
                    with closing(RedisWriter(f"redis://127.0.0.1:{sentinels[0].master_address()[1]}")) as new:
                        await until(lambda: has_written(new) and bool(tracking(new)), 15)
                        await until_longer(acknowledged)
                finally:
                    await end_tasks(writing)
                await until(lambda: database.stale_since is None)
                with closing(RedisWriter(f"redis://127.0.0.1:{sentinels[0].master_address()[1]}")) as new:
                    missing = {id_ for id_ in acknowledged if not new.client.exists(f"study:{id_}")}
                told = "".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
                assert {id_ for id_ in missing if id_ not in told} == set()
                print(f"{len(acknowledged)} acknowledged, {len(missing)} lost and told")


async def until_longer(found: list[str]) -> None:
    wanted = len(found) + 50
    await until(lambda: len(found) > wanted, 20)


def has_listener(sentinel: Sentinel) -> bool:
    """Whether somebody has subscribed; a sentinel knows no PUBSUB NUMSUB."""
    with closing(RedisWriter(f"redis://127.0.0.1:{sentinel.port}")) as boss:
        return any(client["sub"] != "0" for client in boss.client.client_list())


def has_written(writer: RedisWriter) -> bool:
    """Where it may: a replica refuses."""
    try:
        writer.create(run(7, f"/runs/{time.monotonic()}"))
    except redis.ReadOnlyError:
        return False
    return True
