"""Preflights: an allowed origin may send any header, and no other origin anything."""

from __future__ import annotations

import asyncio
import string

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.auth.from_settings import access_control_of
from server.cors import cors
from server.settings import Settings

DASH, EVIL = "https://dash.example.org", "https://evil.example.org"
NAMES = (
    *("accept", "authorization", "content-type", "cache-control", "if-none-match", "x-idempotency-key"),
    *("apollographql-client-name", "apollographql-client-version", "x-apollo-operation-name", "x-apollo-operation-id"),
    *("apollo-require-preflight", "traceparent", "tracestate", "sentry-trace", "baggage", "x-datadog-trace-id"),
)
TOKENS = st.text("!#$%&'*+.^_`|~-" + string.digits + string.ascii_letters, min_size=1, max_size=30)


def ask(allowed: str, origin: str, *asked: str, method: str = "POST") -> httpx.Response:
    """The answer to a preflight; each of `asked` is a line of its own."""
    app = Starlette(
        routes=[Route("/graphql", lambda _request: PlainTextResponse("ok"), methods=["POST"])],
        middleware=cors(access_control_of(Settings(no_auth=True, allow_origins=allowed))),
    )
    headers = [("origin", origin), ("access-control-request-method", method)]
    headers += [("access-control-request-headers", line) for line in asked]

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.options("/graphql", headers=headers)

    return asyncio.run(send())


def members(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}


@given(st.lists(st.sampled_from(NAMES) | TOKENS, min_size=1, max_size=40), st.sampled_from([",", ", "]))
def test_the_headers_that_are_asked_for_are_allowed(names: list[str], separator: str) -> None:
    """Whatever they are; a cache of preflights knows what the answer depends on."""
    for allowed in (DASH, "*"):
        answer = ask(allowed, DASH, separator.join(names))
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == allowed
        assert members(answer.headers["access-control-allow-headers"]) >= {name.lower() for name in names}
        vary = members(answer.headers["vary"])
        assert vary >= {"origin", "access-control-request-method", "access-control-request-headers"}
        assert "access-control-allow-credentials" not in answer.headers


@given(st.lists(st.sampled_from(NAMES) | TOKENS, max_size=5))
def test_another_origin_is_told_how_it_would_be_allowed(names: list[str]) -> None:
    """Whatever it asks for; nothing is mirrored."""
    answer = ask(DASH, EVIL, ",".join(names))
    assert answer.status_code == 403
    assert EVIL in answer.json()["errors"][0]["message"]
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "lines", [("a b",), ("a,,b",), ("x" * 4_097,), (",".join(["a"] * 101),), ("a", "b"), ("a:b",), ('"a"',)]
)
def test_what_is_no_list_of_names_is_refused(lines: tuple[str, ...]) -> None:
    """It is not repeated in a header of the answer."""
    answer = ask(DASH, DASH, *lines)
    assert answer.status_code == 400
    assert "header" in answer.json()["errors"][0]["message"].lower()
    assert "access-control-allow-headers" not in answer.headers


def test_other_methods_are_not_allowed() -> None:
    """Only those that the server has."""
    assert ask(DASH, DASH, method="GET").status_code == 200
    assert ask(DASH, DASH, method="DELETE").status_code == 400


async def test_pages_can_read_what_clients_need() -> None:
    """Headers that a browser hides from a page unless they are named."""
    app = Starlette(
        routes=[Route("/", lambda _request: PlainTextResponse("ok"))],
        middleware=cors(access_control_of(Settings(no_auth=True, allow_origins=DASH))),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answer = await client.get("/", headers={"origin": DASH})
    exposed = members(answer.headers["access-control-expose-headers"])
    assert exposed == {"etag", "retry-after", "www-authenticate", "x-position", "x-request-id"}


pytestmark = pytest.mark.anyio
