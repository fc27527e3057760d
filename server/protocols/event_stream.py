"""GraphQL over server-sent events, in the distinct connections mode: one operation, one response.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md names the events. An operation that can't be begun
is told in the stream, too: a browser's `EventSource` shows nothing of any other answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from schema.encoding import encode_json
from schema.operation import GraphQLResponse, OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease
from server.protocols.failures import GoneError, is_told_to_end

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 12.0
"""Proxies end connections that are silent for longer, often after 60 s or 30 s."""

_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", f"{MEDIA_TYPE}; charset=utf-8".encode()),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),  # nginx sends it on as it comes
        (b"vary", b"accept"),
    ],
}
_COMPLETE = b"event: complete\ndata: \n\n"
_HEARTBEAT = b":\n\n"


class EventStream:
    """A response that ends with its operation, or with its client: whatever fails, `complete` comes last."""

    def __init__(
        self,
        answers: AsyncGenerator[GraphQLResponse] | OperationError,
        failed: Callable[[BaseException], OperationError],
        draining: asyncio.Event | None = None,
        lease: Lease | None = None,
    ) -> None:
        """`failed`: what is told where anything fails. `draining`: ends it, where it would not end by itself.

        `lease`: that of its client, with which it ends.
        """
        self._answers = answers
        self._failed = failed
        self._draining = draining
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # nothing is executed for what nobody is told
            await send(_START)
            await send({"type": "http.response.body"})
            return
        send = _told_when_gone(send)
        try:
            await send(_START)
            await _write(send, _HEARTBEAT)  # some clients take a stream as begun with its first byte only
            last = await self._ending(receive, send)
            if last is not None:
                await send({"type": "http.response.body", "body": last})
        except GoneError:
            pass

    async def _ending(self, receive: Receive, send: Send) -> bytes | None:
        """Sends all but the end of the response, which it returns; None where its client is gone."""
        works = [self._send_all(send), _beat(send), _disconnected(receive)]
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
            if is_told_to_end(error):
                raise
            return _refusal(self._failed(error).errors)

    async def _send_all(self, send: Send) -> bytes:
        if isinstance(self._answers, OperationError):
            raise self._answers
        async with aclosing(self._answers) as answers:
            async for answer in answers:
                await _write(send, _next(answer.encoded))
                await asyncio.sleep(0)  # others have their turn, also where this client reads fast
        return _COMPLETE


def _told_when_gone(send: Send) -> Send:
    async def send_to_somebody(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:
            raise GoneError from error

    return send_to_somebody


async def _drain(draining: asyncio.Event) -> bytes:
    """Ends the response without `complete`, so that its client goes on elsewhere."""
    await draining.wait()
    return b""


async def _end_with(lease: Lease) -> bytes:
    """Ends it when its client is no longer known. Raises `AuthenticationError`."""
    raise await lease.ended()


def _refusal(errors: Sequence[Mapping[str, Any]]) -> bytes:
    return _next(encode_json({"errors": errors})) + _COMPLETE


def _next(answer: bytes) -> bytes:
    return b"event: next\ndata: %b\n\n" % answer


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _beat(send: Send) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await _write(send, _HEARTBEAT)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(*works: Coroutine[Any, Any, bytes | None]) -> bytes | None:
    """Runs them side by side until one of them ends, and ends the others before anybody sends more.

    What the first that ended has to say at the end of the response. Raises what any has raised by then.
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
