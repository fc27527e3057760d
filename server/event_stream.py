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
            works.append(_drain(self._draining))
        if self._lease is not None:
            works.append(_end_with(self._lease))
        last = await _first_of(*works)
        if last is not None:
            with contextlib.suppress(OSError):  # the client is gone
                await send({"type": "http.response.body", "body": last})

    async def _send_all(self, send: Send) -> bytes:
        try:
            if isinstance(self._answers, OperationError):
                raise self._answers
            async with aclosing(self._answers) as answers:
                async for answer in answers:
                    await _write(send, _next(answer.encoded))
                    await asyncio.sleep(0)  # others have their turn, also where this client reads fast
        except AuthenticationError as error:
            return _refusal(error)
        except OperationError as error:
            await _write(send, _next(encode_json({"errors": error.errors})))
        return _COMPLETE


async def _drain(draining: asyncio.Event) -> bytes:
    """Ends the response without `complete`, so that its client goes on elsewhere."""
    await draining.wait()
    return b""


async def _end_with(lease: Lease) -> bytes:
    """Ends it when its client is no longer known."""
    return _refusal(await lease.ended())


def _refusal(error: AuthenticationError) -> bytes:
    return _next(encode_json({"errors": [{"message": str(error), "extensions": {"code": error.code}}]})) + _COMPLETE


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

    What the first that ended has to say at the end of the response; None where its client is gone.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    try:
        endings = [task.result() for task in tasks if task in done]  # of all: any may have failed
    except OSError:
        return None
    return endings[0]
