"""Middleware of every HTTP request: X-Request-ID, security headers, the request counter, and a 503 when the drain
times out.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability.metrics import Metrics
from server.request_id import REQUEST_ID, request_id_of
from server.responses import refusal

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""For responses that are not pages: if a browser shows one anyway, it loads nothing else, and no page can frame it."""
_DRAIN_TIMED_OUT = refusal(
    "The server is shutting down, and this took too long: send the request again; after a mutation, look first.",
    "SERVICE_UNAVAILABLE",
    503,
)


async def request_middleware(app: ASGIApp, scope: Scope, receive: Receive, send: Send, metrics: Metrics) -> None:
    """Calls the app, and adds the headers to its response; answers 503 if the app was cancelled during a drain."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
    id_ = request_id_of(given)
    REQUEST_ID.set(id_)
    draining: asyncio.Event | None = scope.get("state", {}).get("draining")
    has_begun = False

    async def send_with_headers(message: Message) -> None:
        nonlocal has_begun
        if message["type"] == "http.response.start":
            has_begun = True
            metrics.count_request(message["status"])
            headers = list(message.get("headers", ()))
            named = {name for name, _ in headers}
            headers += [header for header in SECURITY_HEADERS if header[0] not in named]
            headers.append((b"x-request-id", id_.encode()))
            if draining is not None and draining.is_set():
                headers.append((b"connection", b"close"))  # so that the client sends its next request to another server
            message = {**message, "headers": headers}  # the app may send the same one again
        await send(message)

    try:
        await app(scope, receive, send_with_headers)
    except asyncio.CancelledError:
        if draining is None or not draining.is_set():
            raise
        if not has_begun:  # a client that has a part of the response sees that the end is missing
            await _DRAIN_TIMED_OUT(scope, receive, send_with_headers)
