"""A response of several parts: it sends the answers to one operation as they come, in the framing of a media type.

An operation that can't be begun is reported in the stream, too: a browser's `EventSource` hides the content of any
other response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias

from starlette.types import Message, Receive, Scope, Send

from schema.errors import TOO_FAR_BEHIND
from schema.operation import GraphQLResponse, OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease
from server.protocols.failures import GoneError, is_cancelled

HEARTBEAT_SECONDS = 12.0
"""Proxies close connections that stay silent for longer, often 30 s or 60 s."""

Errors: TypeAlias = Sequence[Mapping[str, Any]]


class Framing(Protocol):
    """How a media type writes the parts of a stream."""

    @property
    def content_type(self) -> str: ...

    @property
    def opening(self) -> bytes:
        """What is sent before the first answer is there: some clients wait for a byte before the stream is open."""

    @property
    def heartbeat(self) -> bytes:
        """What may stand between two answers, and means nothing."""

    @property
    def end(self) -> bytes:
        """Tells the client that no more answers come."""

    def answer(self, encoded: bytes) -> bytes: ...

    def refusal(self, errors: Errors) -> bytes:
        """The end of a stream that has sent no answer: these errors are the response to the operation."""

    def failure(self, errors: Errors, *, try_again: bool) -> bytes:
        """The end of a stream that has sent answers. `try_again`: whether the client is to begin again by itself."""


class StreamedResponse:
    """The response of one operation. It has its framing's end, except in a drain."""

    def __init__(
        self,
        framing: Framing,
        answers: AsyncGenerator[GraphQLResponse] | OperationError,
        failed: Callable[[BaseException], OperationError],
        draining: asyncio.Event | None = None,
        lease: Lease | None = None,
    ) -> None:
        """`failed` makes the error that the client gets for an exception.

        `draining` and the end of the client's `lease` end the stream of a subscription, which would not end by itself.
        They are left out for others: a mutation that goes on must not be answered by a refusal.
        """
        self._framing = framing
        self._answers = answers
        self._failed = failed
        self._draining = draining
        self._lease = lease
        self._has_answered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = _start(self._framing.content_type)
        if scope["method"] == "HEAD":  # the body of a HEAD response is never sent, so nothing is executed
            await send(start)
            await send({"type": "http.response.body"})
            return
        send = _raising_gone(send)
        try:
            await send(start)
            await _write(send, self._framing.opening)
            last = await self._run(receive, send)
            if last is not None:
                await send({"type": "http.response.body", "body": last})
        except GoneError:
            pass

    async def _run(self, receive: Receive, send: Send) -> bytes | None:
        """Sends the stream, and returns the last part of the body; None if the client is gone."""
        works = [self._send_all(send), self._send_heartbeats(send), _disconnected(receive)]
        if self._draining is not None:
            works.append(_drain(self._draining))
        if self._lease is not None:
            works.append(_end_with(self._lease))
        try:
            return await _first_of(*works)
        except GoneError:
            raise
        except AuthenticationError as error:
            return self._framing.failure([{"message": str(error), "extensions": {"code": error.code}}], try_again=False)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            failure = self._failed(error)
            if not self._has_answered and failure.code != TOO_FAR_BEHIND:
                return self._framing.refusal(failure.errors)
            return self._framing.failure(failure.errors, try_again=failure.code == TOO_FAR_BEHIND)

    async def _send_all(self, send: Send) -> bytes:
        if isinstance(self._answers, OperationError):
            raise self._answers
        async with aclosing(self._answers) as answers:
            async for answer in answers:
                self._has_answered = True
                await _write(send, self._framing.answer(answer.encoded))
                await asyncio.sleep(0)  # lets other tasks run, even if this client reads fast
        return self._framing.end

    async def _send_heartbeats(self, send: Send) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await _write(send, self._framing.heartbeat)


def _start(content_type: str) -> Message:
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", content_type.encode()),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),  # nginx must not buffer the stream
            (b"vary", b"accept"),
        ],
    }


def _raising_gone(send: Send) -> Send:
    async def send_or_raise(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:
            raise GoneError from error

    return send_or_raise


async def _drain(draining: asyncio.Event) -> bytes:
    """Ends the response without its framing's end, so that the client reconnects, to another server."""
    await draining.wait()
    return b""


async def _end_with(lease: Lease) -> bytes:
    """Waits until the client's credentials are no longer valid. Raises `AuthenticationError`.

    If it has another role, ends the response without its framing's end, so that the client reconnects.
    """
    if (reason := await lease.ended()) is not None:
        raise reason
    return b""


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


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
