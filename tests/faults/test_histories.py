"""Faults of the database under a load of mutations: what clients were told is true when it is over."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from server.database.backends.factory import BackendOptions, make_backend
from tests.support.histories import Outcome, Stored, Told, clients, copy_of, until_done
from tests.support.live import serving, until
from tests.support.merlin_process import Merlin
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

CLIENTS = 6
BUSY = "local t = redis.call('TIME')[1] + 2; while redis.call('TIME')[1] + 0 < t do end return 1"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@dataclass
class Site:
    """A Redis, the way to it that can be cut, and two servers of it, of which the second goes that way."""

    server: RedisServer
    proxy: Proxy
    told: Told

    def client(self) -> redis.Redis:
        return self.server.client()


Nemesis = Callable[[Site], Coroutine[Any, Any, None]]


async def cut(site: Site) -> None:
    await site.proxy.go_down()
    await asyncio.sleep(0.5)
    await site.proxy.come_back()


async def stopped(site: Site) -> None:
    assert site.server.pid is not None
    os.kill(site.server.pid, signal.SIGSTOP)
    await asyncio.sleep(1.0)
    os.kill(site.server.pid, signal.SIGCONT)


async def killed(site: Site) -> None:
    site.server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(site.server.restart)


async def connections_killed(site: Site) -> None:
    with site.client() as client:
        for _ in range(10):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)


async def read_only(site: Site) -> None:
    with site.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        await asyncio.sleep(0.5)
        client.execute_command("REPLICAOF", "NO", "ONE")


async def no_memory(site: Site) -> None:
    with site.client() as client:
        client.config_set("maxmemory", "1mb")
        await asyncio.sleep(0.5)
        client.config_set("maxmemory", "0")


async def too_few_replicas(site: Site) -> None:
    with site.client() as client:
        client.config_set("min-replicas-to-write", "1")
        await asyncio.sleep(0.5)
        client.config_set("min-replicas-to-write", "0")


async def scripts_flushed(site: Site) -> None:
    with site.client() as client:
        for _ in range(20):
            client.script_flush()
            await asyncio.sleep(0.02)


async def busy(site: Site) -> None:
    def run_script() -> None:
        with site.client() as client, suppress(redis.RedisError):
            client.eval(BUSY, 0)

    with site.client() as client:
        client.config_set("busy-reply-threshold", "100")
    await asyncio.to_thread(run_script)


async def tracking_refused(site: Site) -> None:
    with site.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-client|tracking")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.5)
        client.execute_command("ACL", "SETUSER", "default", "+client|tracking")


NEMESES: list[Nemesis] = [
    *(cut, stopped, killed, connections_killed, read_only, no_memory, too_few_replicas, scripts_flushed, busy),
    tracking_refused,
]


def stored_in(client: redis.Redis) -> dict[str, Stored]:
    """What stands in Redis, without this project's code."""
    found = {}
    for key in client.scan_iter("run:*", count=1000):
        if key != "run:name":
            record: Any = client.hgetall(key)
            found[record["workspace"]] = json.loads(record["additional_data"]).get("n")
    return found


@pytest.fixture(params=["redis", "valkey"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Proxy]]:
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server is installed here")
    with RedisServer.start(binary, tmp_path, None, *DURABLE) as server:
        async with Proxy(server.port) as proxy:
            yield server, proxy


async def check_faults(site: tuple[RedisServer, Proxy], nemeses: list[Nemesis], seed: int, home: Path) -> Told:
    server, proxy = site
    urls = (server.url, proxy.url)
    async with (
        serving(make_backend(urls[0], BackendOptions())) as one,
        serving(make_backend(urls[1], BackendOptions())) as other,
    ):
        async with clients(CLIENTS, [one.http, other.http], seed) as told:
            for nemesis in nemeses:
                await until_done(told, 30)
                await nemesis(Site(server, proxy, told))
            await until_done(told, 30)
        await until(lambda: all(live.database.stale_since is None for live in (one, other)))
        for live in (one, other):
            await live.database.feed.catch_up()
        with server.client() as client:
            stored = stored_in(client)
        assert told.check(stored) == []
        assert copy_of(one) == stored
        assert copy_of(other) == stored
        with Merlin(home, server.url) as merlin:
            assert len(merlin.dump()["run"]) == len(stored)
    return told


@pytest.mark.parametrize("nemesis", NEMESES, ids=lambda nemesis: nemesis.__name__)
async def test_what_clients_were_told_is_true_after_a_fault(
    site: tuple[RedisServer, Proxy], nemesis: Nemesis, tmp_path: Path
) -> None:
    """Nothing acknowledged is lost, nothing refused is done; both copies equal the database, and Merlin reads it."""
    told = await check_faults(site, [nemesis], 1, tmp_path / "home")
    print(dict(told.outcomes))
    assert told.outcomes[Outcome.DONE] >= 60


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_what_clients_were_told_is_true_after_many_faults(
    site: tuple[RedisServer, Proxy], seed: int, tmp_path: Path
) -> None:
    """As above, one fault after the other in any order."""
    chance = random.Random(seed)
    told = await check_faults(site, chance.choices(NEMESES, k=20), seed, tmp_path / "home")
    print(dict(told.outcomes))


# --- the checker itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "stored", "finding"),
    [
        ((Outcome.DONE, 1), None, "/r is None"),
        ((Outcome.DONE, 1), 0, "/r is 0"),
        ((Outcome.REFUSED, 1), 1, "/r is 1"),
        ((Outcome.UNKNOWN, 1), 2, "/r is 2"),
        ((Outcome.NOT_FOUND, 1), None, "/r is not found"),
    ],
)
def test_the_checker_finds_planted_faults(told: tuple[Outcome, int], stored: Stored, finding: str) -> None:
    """A lost write, one that was half lost, one that was refused and done, one of nobody, one that was hidden."""
    history = Told()
    history.note("/r", Outcome.DONE, 0)
    outcome, new = told
    history.note("/r", outcome, new)
    found = history.check({} if stored is None else {"/r": stored})
    assert found
    assert found[0].startswith(finding)


def test_the_checker_accepts_either_end_of_an_unknown_outcome() -> None:
    """The mutation was done, or was not."""
    history = Told()
    history.note("/r", Outcome.DONE, 0)
    history.note("/r", Outcome.UNKNOWN, 1)
    assert history.check({"/r": 0}) == history.check({"/r": 1}) == []
    assert history.check({"/r": 0, "/else": 0}) == ["/else is nobody's"]


def test_the_checker_knows_that_a_history_begins_anew() -> None:
    """What a backup has not is rightly gone; what was acknowledged since is there; what was under way may be."""
    history = Told()
    history.note("/lost", Outcome.DONE, 1)
    history.note("/kept", Outcome.DONE, 1)
    history.begin_anew({"/kept": 0, "/deleted": 0})
    history.note("/kept", Outcome.DONE, 2, era=0)
    assert history.check({"/kept": 0, "/deleted": 0}) == history.check({"/kept": 2, "/deleted": 0}) == []
    assert history.check({"/kept": 1, "/deleted": 0})
    assert history.check({"/kept": 0, "/deleted": 0, "/lost": 1})
    history.note("/kept", Outcome.DONE, 3, era=1)
    assert history.check({"/kept": 0, "/deleted": 0}) == ["/kept is 0, and has to be one of {3}"]
