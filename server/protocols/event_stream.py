"""GraphQL over server-sent events, in the distinct connections mode: one operation, one response.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md names the events. An operation that can't be begun
is reported in the stream, too: a browser's `EventSource` hides the content of any other response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from schema.encoding import encode_json
from schema.errors import TOO_FAR_BEHIND
from schema.operation import GraphQLResponse, OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease
from server.protocols.failures import GoneError, is_cancelled

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 12.0
"""Proxies close connections that stay silent for longer, often 30 s or 60 s."""

_HEADERS = (
    (b"content-type", f"{MEDIA_TYPE}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx must not buffer the stream
    (b"vary", b"accept"),
)
_COMPLETE = b"event: complete\ndata: \n\n"
_HEARTBEAT = b":\n\n"


class EventStream:
    """The response of one operation. `complete` is its last event, except in a drain."""

    def __init__(
        self,
        answers: AsyncGenerator[GraphQLResponse] | OperationError,
        failed: Callable[[BaseException], OperationError],
        draining: asyncio.Event | None = None,
        lease: Lease | None = None,
    ) -> None:
        """`failed` makes the error that the client gets for an exception.

        `draining` and the end of the client's `lease` end the stream of a subscription, which would not end by itself.
        They are left out for others: a mutation that goes on must not be answered by a refusal.
        """
        self._answers = answers
        self._failed = failed
        self._draining = draining
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # the body of a HEAD response is never sent, so nothing is executed
            await send(_start())
            await send({"type": "http.response.body"})
            return
        send = _raising_gone(send)
        try:
            await send(_start())
            await _write(send, _HEARTBEAT)  # some clients treat the stream as open only after its first byte
            last = await self._run(receive, send)
            if last is not None:
                await send({"type": "http.response.body", "body": last})
        except GoneError:
            pass

    async def _run(self, receive: Receive, send: Send) -> bytes | None:
        """Sends the stream, and returns the last part of the body; None if the client is gone."""
        works = [self._send_all(send), _send_heartbeats(send), _disconnected(receive)]
        if self._draining is not None:
            works.append(_drain(self._draining))
        if self._lease is not None:
            works.append(_end_with(self._lease))
        try:
            return await _first_of(*works)
        except GoneError:
            raise
        except AuthenticationError as error:
            return _refusal([{"message": str(error), "extensions": {"code": error.code}}])
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            failure = self._failed(error)
            if failure.code == TOO_FAR_BEHIND:  # without `complete`, so that the client connects again by itself
                return _next(encode_json({"errors": failure.errors}))
            return _refusal(failure.errors)

    async def _send_all(self, send: Send) -> bytes:
        if isinstance(self._answers, OperationError):
            raise self._answers
        async with aclosing(self._answers) as answers:
            async for answer in answers:
                await _write(send, _next(answer.encoded))
                await asyncio.sleep(0)  # lets other tasks run, even if this client reads fast
        return _COMPLETE


def _start() -> Message:
    """A message of its own for each stream, since middleware changes it."""
    return {"type": "http.response.start", "status": 200, "headers": list(_HEADERS)}


def _raising_gone(send: Send) -> Send:
    async def send_or_raise(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:
            raise GoneError from error

    return send_or_raise


async def _drain(draining: asyncio.Event) -> bytes:
    """Ends the response without `complete`, so that the client reconnects, to another server."""
    await draining.wait()
    return b""


async def _end_with(lease: Lease) -> bytes:
    """Waits until the client's credentials are no longer valid. Raises `AuthenticationError`."""
    raise await lease.ended()


def _refusal(errors: Sequence[Mapping[str, Any]]) -> bytes:
    return _next(encode_json({"errors": errors})) + _COMPLETE


def _next(answer: bytes) -> bytes:
    return b"event: next\ndata: %b\n\n" % answer


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _send_heartbeats(send: Send) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await _write(send, _HEARTBEAT)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(*works: Coroutine[Any, Any, bytes | None]) -> bytes | None:
    """Runs coroutines concurrently until one ends, cancels the others, and returns the result of the one that ended.

    Raises what it raised.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    endings = [task.result() for task in tasks if task in done]
    return endings[0]
