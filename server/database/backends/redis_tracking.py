"""A connection to Redis on which the server tells of changed keys, by client-side caching in broadcast mode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from hiredis import PushNotification
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection


@asynccontextmanager
async def tracking(client: Redis, prefixes: Iterable[str]) -> AsyncIterator[AbstractConnection]:
    """A connection of its own, on which the server tells of every change of a key with one of the prefixes.

    In broadcast mode the server keeps no memory of keys for us. Only RESP3, which the client must speak, carries both
    answers and notices. Raises `RedisError` and `OSError`.
    """
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's decorator
    try:
        connection._parser.set_invalidation_push_handler(_as_it_is)  # noqa: SLF001 - there is no public way to it
        words = [word for prefix in prefixes for word in ("PREFIX", prefix)]
        await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *words)
        await connection.read_response()
        yield connection
    finally:
        await connection.disconnect()
        await pool.release(connection)


async def _as_it_is(notification: PushNotification) -> PushNotification:
    return notification
