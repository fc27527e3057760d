"""The routes of the ASGI app, and the JSON it writes."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from schema.build import make_schema, sdl_of
from schema.encoding import encode_json
from server.app import make_app
from server.database.feed import Feed
from server.settings import Settings

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A client of the app within its lifespan, and the lifespan's state."""
    app = make_app(settings)
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(app=_with_state(app, state))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, state


def _with_state(app: Starlette, state: Any) -> Any:
    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"state": dict(state)}, receive, send)

    return with_state


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with running(Settings(database="memory://", demo=True, no_auth=True)) as (client, _):
        yield client


async def test_a_query_is_answered_by_post_and_by_get(client: httpx.AsyncClient) -> None:
    """The same query gives the same answer by POST and by GET."""
    query = "{ studies(first: 2) { totalCount nodes { name } } }"
    by_post = await client.post("/graphql", json={"query": query})
    by_get = await client.get("/graphql", params={"query": query})
    assert by_post.status_code == by_get.status_code == 200
    assert by_post.json() == by_get.json()
    assert by_post.json()["data"]["studies"]["totalCount"] == 6


async def test_the_schema_is_served(client: httpx.AsyncClient) -> None:
    """`/schema.graphql` is the schema that answers."""
    assert (await client.get("/schema.graphql")).text == sdl_of(make_schema())


async def test_the_schema_is_sent_once(client: httpx.AsyncClient) -> None:
    """Whoever names its ETag is told that it is the same."""
    first = await client.get("/schema.graphql")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await client.get("/schema.graphql", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await client.get("/schema.graphql", headers={"if-none-match": '"other"'})).status_code == 200


async def test_health_and_readiness(client: httpx.AsyncClient) -> None:
    """A server whose copy is fresh is alive and ready, and tells its revision."""
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "revision": 1})


async def test_a_stale_server_is_alive_but_not_ready() -> None:
    """While the database can't be reached the server says since when, and still answers; in a pause it stays ready."""
    async with running(Settings(database="memory://", demo=True, no_auth=True)) as (client, state):
        state["database"].feed.stale_since = datetime(2026, 1, 1, tzinfo=UTC)
        assert (await client.get("/healthz")).status_code == 200
        stale = await client.get("/readyz")
        assert stale.status_code == 503
        assert stale.json() == {"status": "stale", "revision": 1, "staleSince": "2026-01-01T00:00:00+00:00"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Feed, "is_waiting", True)
            pausing = await client.get("/readyz")
        assert (pausing.status_code, pausing.json()) == (200, stale.json() | {"status": "ready"})
        answer = (await client.post("/graphql", json={"query": "{ database { staleSince runs } }"})).json()
        assert answer["data"]["database"] == {"staleSince": "2026-01-01T00:00:00+00:00", "runs": 48}


_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates as well

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def _as_javascript(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _as_javascript(item) for key, item in value.items()}
        case list():
            return [_as_javascript(item) for item in value]
        case _:
            return value


@given(JSON_VALUES)
def test_every_value_is_written_as_valid_json(value: Any) -> None:
    """Whatever JSON was stored, NaN, large integers and lone surrogates included, the answer is valid JSON of it."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    written = encode_json({"data": value})
    assert json.loads(written.decode(), parse_constant=refuse) == {"data": _as_javascript(value)}
