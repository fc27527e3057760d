"""Calls of scripts: those of one pass of the event loop go to the server together, and each has its own reply."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from server.database.backends.redis_client import TIMEOUT
from server.database.tasks import end_tasks


class _Call(NamedTuple):
    request: bytes
    reply: asyncio.Future[Any]


class RedisCalls:
    """Does not send anything again: whoever calls decides what a lost reply means."""

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._next: list[_Call] = []
        """To be sent when this pass of the loop ends."""
        self._exchanges: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends what is under way: who waits for a reply gets an error."""
        await end_tasks([*self._exchanges])

    async def call(self, words: Sequence[str | int | bytes]) -> Any:
        """The reply to a command. Raises the server's error, or one of redis-py or of the system.

        A caller that is cancelled does not keep the command from being executed.
        """
        loop = asyncio.get_running_loop()
        packed = pack_command(tuple(_word(word) for word in words))  # type: ignore[arg-type]  # hiredis takes any tuple
        call = _Call(packed, loop.create_future())
        if not self._next:
            loop.call_soon(self._send)
        self._next.append(call)
        return await call.reply

    def _send(self) -> None:
        calls, self._next = [call for call in self._next if not call.reply.done()], []
        exchange = asyncio.get_running_loop().create_task(self._exchange(calls))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)

    async def _exchange(self, calls: Sequence[_Call]) -> None:
        is_sent = False
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's decorator
            try:
                is_sent = True
                await _talk(connection, calls)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._pool.release(connection)
        except (RedisError, OSError) as error:
            _fail(calls, error, everybody=not is_sent)
        except BaseException:
            _fail(calls, RedisConnectionError("it was closed"), everybody=True)
            raise


async def _talk(connection: AbstractConnection, calls: Sequence[_Call]) -> None:
    """The time that the server has for a reply begins with the one before."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT) as limit:
        await connection.send_packed_command(b"".join(call.request for call in calls))
        for call in calls:
            try:
                reply = await connection.read_response(timeout=math.inf)
            except ResponseError as error:
                if not call.reply.done():
                    call.reply.set_exception(error)
            else:
                if not call.reply.done():
                    call.reply.set_result(reply)
            limit.reschedule(loop.time() + TIMEOUT)


def _fail(calls: Sequence[_Call], error: Exception, *, everybody: bool) -> None:
    """`everybody`: the error is about all of them. Else it answers the first one that has no reply: of the others it is
    not known whether they were executed.
    """
    left = [call.reply for call in calls if not call.reply.done()]
    for number, reply in enumerate(left):
        reply.set_exception(error if everybody or not number else RedisConnectionError(f"the reply is lost: {error}"))


def _word(word: str | int | bytes) -> str | int | bytes:
    """hiredis encodes texts, but none with bytes that were no UTF-8."""
    return word if not isinstance(word, str) or word.isascii() else word.encode(errors="surrogateescape")
