"""GraphQL over server-sent events, in the distinct connections mode: one operation, one response.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md names the events. An operation that can't be begun
is told in the stream, too: a browser's `EventSource` shows nothing of any other answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from schema.encoding import encode_json
from schema.operations import Answer, OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 12.0
"""Proxies end connections that are silent for longer, often after 60 s or 30 s."""

_HEADERS = [
    (b"content-type", f"{MEDIA_TYPE}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx sends it on as it comes
    (b"vary", b"accept"),
]
_COMPLETE = b"event: complete\ndata: \n\n"
_HEARTBEAT = b":\n\n"


class EventStream:
    """A response that ends with its operation, or with its client."""

    def __init__(
        self,
        answers: AsyncGenerator[Answer] | OperationError,
        draining: asyncio.Event | None = None,
        lease: Lease | None = None,
    ) -> None:
        """`draining`: ends it, where it would not end by itself. `lease`: that of its client, with which it ends."""
        self._answers = answers
        self._draining = draining
        self._lease = lease

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _write(send, _HEARTBEAT)  # some clients take a stream as begun with its first byte only
        works = [self._send_all(send), _beat(send), _disconnected(receive)]
        if self._draining is not None:
            works.append(_drain(send, self._draining))
        if self._lease is not None:
            works.append(_end_with(send, self._lease))
        await _until_the_first(*works)

    async def _send_all(self, send: Send) -> None:
        try:
            if isinstance(self._answers, OperationError):
                raise self._answers
            async with aclosing(self._answers) as answers:
                async for answer in answers:
                    await _send_next(send, answer.encoded)
                    await asyncio.sleep(0)  # others have their turn, also where this client reads fast
        except AuthenticationError as error:
            await _send_refusal(send, error)
            return
        except OperationError as error:
            await _send_next(send, encode_json({"errors": error.errors}))
        await send({"type": "http.response.body", "body": _COMPLETE})


async def _drain(send: Send, draining: asyncio.Event) -> None:
    """Ends the response without `complete`, so that its client goes on elsewhere."""
    await draining.wait()
    await send({"type": "http.response.body", "body": b""})


async def _end_with(send: Send, lease: Lease) -> None:
    """Ends it when its client is no longer known."""
    await _send_refusal(send, await lease.ended())


async def _send_refusal(send: Send, error: AuthenticationError) -> None:
    await _send_next(send, encode_json({"errors": [{"message": str(error), "extensions": {"code": error.code}}]}))
    await send({"type": "http.response.body", "body": _COMPLETE})


async def _send_next(send: Send, answer: bytes) -> None:
    await _write(send, b"event: next\ndata: %b\n\n" % answer)


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _beat(send: Send) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await _write(send, _HEARTBEAT)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _until_the_first(*works: Coroutine[Any, Any, None]) -> None:
    """Runs them side by side until one of them ends, and ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(OSError):  # the client is gone
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
