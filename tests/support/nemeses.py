"""Nemeses: what makes a Redis, or the way to it, fail while clients send mutations."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import redis

from tests.support.checker import Cell, Told
from tests.support.histories import resting, until_done
from tests.support.plans import is_of_run
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer

BUSY = "local t = redis.call('TIME')[1] + 2; while redis.call('TIME')[1] + 0 < t do end return 1"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""So that what a killed Redis acknowledged is there again."""
MORE = 10
"""Acknowledged mutations between two parts of a fault."""


@dataclass
class Site:
    """A Redis, and the way to it that can be cut, which the second server goes."""

    server: RedisServer
    proxy: Proxy
    told: Told

    def client(self) -> redis.Redis:
        """By the socket file, which needs no certificate."""
        return redis.Redis(unix_socket_path=str(self.server.unix_path), decode_responses=True)


Nemesis = Callable[[Site], Coroutine[Any, Any, None]]

# --- the way ----------------------------------------------------------------------------------------------------------


async def cut(site: Site) -> None:
    await site.proxy.go_down()
    await asyncio.sleep(0.5)
    await site.proxy.come_back()


async def half_open(site: Site) -> None:
    """Nothing passes, and nobody is told; what was sent arrives when it is over, even if its sender has given up."""
    site.proxy.passes.clear()
    await asyncio.sleep(3.0)
    site.proxy.passes.set()


async def slow(site: Site) -> None:
    site.proxy.delay = 0.2
    await asyncio.sleep(2.0)
    site.proxy.delay = 0.0


async def connections_killed(site: Site) -> None:
    with site.client() as client:
        for _ in range(10):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)


# --- the process ------------------------------------------------------------------------------------------------------


async def stopped(site: Site) -> None:
    assert site.server.pid is not None
    os.kill(site.server.pid, signal.SIGSTOP)
    await asyncio.sleep(1.0)
    os.kill(site.server.pid, signal.SIGCONT)


async def killed(site: Site) -> None:
    site.server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(site.server.restart)


async def loading(site: Site) -> None:
    """It is started again, and answers LOADING for a second."""
    arguments = site.server.args
    with site.client() as client:
        client.bgrewriteaof()  # else each change since its start takes the time of a key
        while client.info("persistence")["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.01)
        delay = 1_000_000 // max(client.dbsize(), 1)
    site.server.kill()
    site.server.args = (*arguments, "--key-load-delay", str(delay), "--loading-process-events-interval-bytes", "1024")
    await asyncio.to_thread(site.server.restart)
    site.server.args = arguments
    with site.client() as client:
        client.config_set("key-load-delay", "0")


async def restored(site: Site) -> None:
    """It is started again from an older dump: what was acknowledged since is lost."""
    arguments = site.server.args
    dump = site.server.directory / f"older-{site.told.era}.rdb"
    with site.client() as client:
        client.save()
        kept = site.told.snapshot()
        shutil.copy(site.server.directory / str(client.config_get("dbfilename")["dbfilename"]), dump)
    await until_done(site.told, MORE)
    site.server.kill()
    site.told.go_back(kept)
    site.server.args = (*arguments, "--appendonly", "no", "--dbfilename", dump.name)
    await asyncio.to_thread(site.server.restart)
    site.server.args = arguments
    with site.client() as client:
        client.config_set("appendonly", "yes")


# --- its refusals -----------------------------------------------------------------------------------------------------


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


async def rights_withdrawn(site: Site) -> None:
    """Those to write."""
    with site.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-@write")
        await asyncio.sleep(0.5)
        client.execute_command("ACL", "SETUSER", "default", "+@all")


async def tracking_refused(site: Site) -> None:
    with site.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-client|tracking")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.5)
        client.execute_command("ACL", "SETUSER", "default", "+client|tracking")


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


async def buffers_overrun(site: Site) -> None:
    """More notices at once than it keeps for a client."""
    with site.client() as client:
        client.config_set("client-output-buffer-limit", "normal 8192 8192 0 pubsub 8192 8192 0")
        for _ in range(3):
            names = [f"run:somebody-{number}" for number in range(2_000)]
            with client.pipeline(transaction=True) as pipeline:
                for name in names:
                    pipeline.set(name, "")
                pipeline.delete(*names)
                with suppress(redis.ConnectionError):  # its own answer may be too long as well
                    pipeline.execute()
            await asyncio.sleep(0.1)
        client.config_set("client-output-buffer-limit", "normal 0 0 0 pubsub 33554432 8388608 60")


# --- its certificate --------------------------------------------------------------------------------------------------


async def certificate_replaced(site: Site) -> None:
    """Another one of the same authority, for connections that begin from now on."""
    _renew(site, timedelta(days=1))
    await connections_killed(site)


async def certificate_expired(site: Site) -> None:
    """No new connection can be made until there is another one."""
    _renew(site, timedelta(seconds=1))
    await asyncio.sleep(1.5)
    await connections_killed(site)
    with site.server.client() as client, pytest.raises(redis.ConnectionError, match="certificate has expired"):
        client.ping()
    await asyncio.sleep(1.0)
    _renew(site, timedelta(days=1))


def _renew(site: Site, lifetime: timedelta) -> None:
    tls = site.server.tls
    assert tls is not None
    with redis.Redis(unix_socket_path=str(site.server.unix_path)) as client:
        tls.renew(lifetime)
        client.config_set("tls-cert-file", str(tls.certificate), "tls-key-file", str(tls.key))


# --- its data ---------------------------------------------------------------------------------------------------------
# A synchronous client stops this loop, so no answer comes between such a fault and its note. Where a whole database is
# exchanged, it is between two changes of Merlin.


async def flushed(site: Site) -> None:
    with site.client() as client:
        async with site.told.merlin:
            client.flushall()
            site.told.begin_anew({})


async def swapped(site: Site) -> None:
    """An empty database takes its place, and then it comes back."""
    site.told.is_unseen = True
    with site.client() as client:
        async with site.told.merlin:
            client.swapdb(0, 1)
            kept = site.told.snapshot()
            site.told.begin_anew({})
        await until_done(site.told, MORE)
        async with site.told.merlin:
            client.swapdb(0, 1)
            site.told.go_back(kept)
        client.select(1)
        client.flushdb()


async def replaced(site: Site) -> None:
    """An older copy of it takes its place, for ever."""
    site.told.is_unseen = True
    with site.client() as client:
        async with resting(site.told):
            for key in client.scan_iter(count=1_000):
                client.copy(key, key, destination_db=1, replace=True)
            kept = site.told.snapshot()
        await until_done(site.told, MORE)
        async with site.told.merlin:
            client.swapdb(0, 1)
            site.told.go_back(kept)
        client.select(1)
        client.flushdb()


async def expired(site: Site) -> None:
    """Some runs, though nothing of Merlin's should ever expire."""
    with site.client() as client:
        for cell, id_ in _some_runs(site):
            client.expire(f"run:{id_}", 0)
            _lose(site, cell, id_)


async def types_changed(site: Site) -> None:
    """Runs become texts for a while, and are deleted then."""
    with site.client() as client:
        runs = _some_runs(site)
        for cell, id_ in runs:
            client.set(f"run:{id_}", "a text")
            _lose(site, cell, id_)
        await until_done(site.told, MORE)
        client.delete(*(f"run:{id_}" for _, id_ in runs))


def _some_runs(site: Site) -> list[tuple[Cell, str]]:
    possible = site.told.possible
    return [(cell, id_) for cell, id_ in site.told.ids.items() if cell[0] == "/" and None not in possible[cell]][:3]


def _lose(site: Site, run: Cell, id_: str) -> None:
    site.told.broken.add(id_)
    site.told.lose([cell for cell in site.told.possible if is_of_run(cell, run)])


NEMESES: list[Nemesis] = [
    *(cut, half_open, slow, connections_killed),
    *(stopped, killed, loading, restored),
    *(read_only, no_memory, too_few_replicas, rights_withdrawn, tracking_refused, scripts_flushed, busy),
    *(buffers_overrun, flushed, swapped, replaced, expired, types_changed),
]
