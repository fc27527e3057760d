"""A master with replicas and three sentinels, and their failover."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import redis

from tests.support.feeds import until
from tests.support.servers import RedisServer, Sentinel
from tests.support.writers import RedisWriter


@asynccontextmanager
async def three_sentinels(
    binary: Path, directory: Path, *, more_replicas: int = 0
) -> AsyncIterator[tuple[RedisServer, RedisServer, list[Sentinel]]]:
    """A master, its replica, and sentinels that know all replicas and each other."""
    with ExitStack() as stack:
        first = stack.enter_context(RedisServer.start(binary, directory / "a"))
        second = stack.enter_context(RedisServer.start(binary, directory / "b", replica_of=first))
        for number in range(more_replicas):
            stack.enter_context(RedisServer.start(binary, directory / f"r{number}", replica_of=first))
        sentinels = [
            stack.enter_context(Sentinel.start(binary, directory / f"s{number}", first)) for number in (0, 1, 2)
        ]
        for sentinel in sentinels:
            await asyncio.to_thread(sentinel.wait_for_replicas, 1 + more_replicas)
            await asyncio.to_thread(sentinel.wait_for_others, 2)
        yield first, second, sentinels


async def fail_over(sentinel: Sentinel, to: RedisServer | None = None) -> None:
    """Returns when the sentinel names the new master: `to`, if that is known."""
    before = sentinel.master_address()
    with closing(RedisWriter(f"redis://127.0.0.1:{sentinel.port}")) as boss:
        await until(lambda: fails_over(boss), 20)
    if to is None:
        await until(lambda: sentinel.master_address() != before, 20)
    else:
        await until(lambda: sentinel.master_address()[1] == to.port, 20)


@asynccontextmanager
async def frozen(server: Sentinel | RedisServer) -> AsyncIterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def fails_over(boss: RedisWriter) -> bool:
    """Not before the sentinel knows the replica well, and the failover before is over."""
    try:
        return bool(boss.client.sentinel_failover("mymaster"))
    except redis.ResponseError as error:
        if str(error).startswith(("NOGOODSLAVE", "INPROG")):
            return False
        raise
