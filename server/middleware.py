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
"""Of answers that are no page: one that a browser shows all the same loads nothing, and nobody frames it."""
_GIVEN_UP = refusal("The server ends, and this took too long: ask again.", "SERVICE_UNAVAILABLE", 503)


async def request_middleware(app: ASGIApp, scope: Scope, receive: Receive, send: Send, metrics: Metrics) -> None:
    """Answers an HTTP request by the app."""
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
                headers.append((b"connection", b"close"))  # what its client asks next goes to another server
            message["headers"] = headers
        await send(message)

    try:
        await app(scope, receive, send_with_headers)
    except asyncio.CancelledError:
        if draining is None or not draining.is_set():
            raise
        if not has_begun:  # else its client sees that the end is missing
            await _GIVEN_UP(scope, receive, send_with_headers)
