"""A wrong, missing, expired and insufficient token: the answers that docs/security.md names, on every protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

QUERY = "{ viewer { roles } }"
MUTATION = 'mutation { createStudy(input: {name: "new"}) { created } }'
CHANGES = "subscription { changes { kind } }"
EVENT_STREAM = {"accept": "text/event-stream"}
PROTOCOL = Subprotocol("graphql-transport-ws")
REFUSED = {
    "missing": (None, "UNAUTHENTICATED", "Not logged in: "),
    "wrong": ("Bearer nobody", "INVALID_TOKEN", "This token is not known here."),
    "of another scheme": ("Basic YTpi", "INVALID_TOKEN", "Send the token as `Authorization: Bearer TOKEN`."),
    "empty": ("Bearer", "UNAUTHENTICATED", "Not logged in: "),
    "huge": (f"Bearer {'x' * 10_000}", "INVALID_TOKEN", "This token is not known here."),
    "not of ASCII": ("Bearer é", "INVALID_TOKEN", "This token is not known here."),
    "expired": ("Bearer old", "TOKEN_EXPIRED", "This token has expired: ask for a new one."),
}


def settings_with(path: Path, **tokens: tuple[Role, datetime | None]) -> Settings:
    for token, (role, expires) in tokens.items():
        add_line(path, TokenLine(token, role, hash_of(token), expires))
    return Settings(token_file=path)


@pytest.fixture(params=[True, False], ids=["compiled", "general"])
async def live(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Live]:
    """Each way of answering passes the same tests."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    settings = settings_with(
        tmp_path / "tokens",
        read=(Role.READ, None),
        write=(Role.WRITE, None),
        admin=(Role.ADMIN, None),
        old=(Role.ADMIN, past),
    )
    settings = dataclasses.replace(settings, compiled=request.param)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        yield client


def sent(authorization: str | None) -> list[tuple[bytes, bytes]]:
    return [] if authorization is None else [(b"authorization", authorization.encode())]


async def conversation(live: Live, query: str, payload: Any = None, headers: Any = None) -> list[dict[str, Any]]:
    """What a websocket tells of one operation, or how it is closed."""
    heard: list[dict[str, Any]] = []
    opening = connect(live.ws, subprotocols=[PROTOCOL], additional_headers=headers or {})
    async with asyncio.timeout(DEADLINE), opening as socket:
        init = {"type": "connection_init"} | ({} if payload is None else {"payload": payload})
        await socket.send(json.dumps(init))
        try:
            heard.append(json.loads(await socket.recv()))
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
            while not heard or heard[-1]["type"] not in ("complete", "error"):
                heard.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            heard.append({"type": "closed", "code": socket.close_code, "reason": socket.close_reason})
    return heard


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json", "text/event-stream"])
async def test_a_request_of_a_stranger_is_refused(
    live: Live, client: httpx.AsyncClient, kind: str, accept: str
) -> None:
    """401 with a challenge, before anything is read; event streams, too."""
    authorization, code, message = REFUSED[kind]
    headers = [(b"accept", accept.encode()), *sent(authorization)]
    for answer in (
        await client.post(live.http, json={"query": QUERY}, headers=headers),
        await client.post(live.http, content=b"{", headers=headers),
        await client.get(live.http, params={"query": QUERY}, headers=headers),
    ):
        media_type = accept if "json" in accept else "application/json"
        assert (answer.status_code, answer.headers["content-type"]) == (401, media_type)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="merlin-graphql"')
        assert ('error="invalid_token"' in answer.headers["www-authenticate"]) == (code != "UNAUTHENTICATED")
        (error,) = answer.json()["errors"]
        assert error["message"].startswith(message)
        assert error["extensions"] == {"code": code}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_websocket_of_a_stranger_is_closed(live: Live, kind: str) -> None:
    """4401 after `connection_init`, by its payload or by the headers of its opening."""
    authorization, _, message = REFUSED[kind]
    payload = {} if authorization is None else {"Authorization": authorization}
    ways: list[dict[str, Any]] = [{"payload": payload}]
    if authorization is not None and authorization.isascii() and len(authorization) < 8_000:
        ways.append({"headers": {"authorization": authorization}})  # of others its client makes no request
    for way in ways:
        (closed,) = await conversation(live, QUERY, **way)
        assert (closed["type"], closed["code"]) == ("closed", 4401)
        assert closed["reason"].startswith(message)


@pytest.mark.parametrize(
    "path", ["/schema.graphql", "/metrics", "/graphql?query=%7B__typename%7D", "/logout", "/login", "/none"]
)
async def test_nothing_else_tells_strangers_of_the_database(live: Live, client: httpx.AsyncClient, path: str) -> None:
    """Only whether the server lives and is ready."""
    base = live.http.removesuffix("/graphql")
    answer = await client.get(base + path)
    assert answer.status_code in (401, 404, 405)
    assert "errors" in answer.json()
    for health in ("/healthz", "/readyz"):
        assert (await client.get(base + health)).status_code == 200


@pytest.mark.parametrize(
    ("token", "roles"),
    [("read", ["READ"]), ("write", ["READ", "WRITE"]), ("admin", ["READ", "WRITE", "ADMIN"])],
)
async def test_a_token_has_its_role_everywhere(
    live: Live, client: httpx.AsyncClient, token: str, roles: list[str]
) -> None:
    """By POST, GET, event stream and websocket, in the header or in the payload, whatever the scheme's case."""
    headers = {"authorization": f"bearer {token}"}
    expected = {"data": {"viewer": {"roles": roles}}}
    assert (await client.post(live.http, json={"query": QUERY}, headers=headers)).json() == expected
    assert (await client.get(live.http, params={"query": QUERY}, headers=headers)).json() == expected
    stream = await client.post(live.http, json={"query": QUERY}, headers=headers | EVENT_STREAM)
    assert json.dumps(expected, separators=(",", ":")) in stream.text
    ack = {"type": "connection_ack"}
    for payload in ({"Authorization": f"Bearer {token}"}, {"authorization": f"bearer {token}"}, {"token": token}):
        told = await conversation(live, QUERY, payload)
        assert told == [ack, {"type": "next", "id": "1", "payload": expected}, {"type": "complete", "id": "1"}]
    assert (await conversation(live, QUERY, headers=headers))[0] == ack


async def test_what_needs_another_role_is_refused(live: Live, client: httpx.AsyncClient) -> None:
    """403 over HTTP, an event in the stream, `error` over a websocket, whose other operations go on."""
    headers = {"authorization": "Bearer read"}
    told = {"code": "FORBIDDEN", "needs": "WRITE"}
    message = "Mutation.createStudy needs the role WRITE, and this client has READ."
    for accept in ("application/json", "application/graphql-response+json"):
        answer = await client.post(live.http, json={"query": MUTATION}, headers=headers | {"accept": accept})
        assert answer.status_code == 403
        assert answer.json() == {"errors": [{"message": message, "extensions": told}]}
    stream = await client.post(live.http, json={"query": MUTATION}, headers=headers | EVENT_STREAM)
    assert (stream.status_code, stream.text.count("FORBIDDEN"), "event: complete" in stream.text) == (200, 1, True)
    heard = await conversation(live, MUTATION, {"token": "read"})
    assert heard[1] == {"type": "error", "id": "1", "payload": [{"message": message, "extensions": told}]}
    assert live.database.studies.by_name("new") is None
    allowed = await client.post(live.http, json={"query": MUTATION}, headers={"authorization": "Bearer write"})
    assert allowed.json()["data"] == {"createStudy": {"created": True}}


async def test_subscriptions_end_with_their_token(tmp_path: Path, client: httpx.AsyncClient) -> None:
    """4403 for a websocket, whose client may have a newer one; an event and the end for an event stream."""
    soon = datetime.now(UTC) + timedelta(seconds=1)
    settings = settings_with(tmp_path / "tokens", brief=(Role.READ, soon))
    async with serving(await memory_of(), settings=settings) as live:
        request = client.post(
            live.http, json={"query": CHANGES}, headers=EVENT_STREAM | {"authorization": "Bearer brief"}
        )
        heard, stream = await asyncio.gather(conversation(live, CHANGES, {"token": "brief"}), request)
    assert time.time() >= soon.timestamp()
    assert heard[1:] == [{"type": "closed", "code": 4403, "reason": "This token has expired: ask for a new one."}]
    assert '"code":"TOKEN_EXPIRED"' in stream.text
    assert stream.text.endswith("event: complete\ndata: \n\n")


async def test_a_server_can_be_read_only(client: httpx.AsyncClient) -> None:
    """Nobody has more than READ, with or without a login."""
    for settings in (Settings(no_auth=True, read_only=True), Settings(token="t" * 20, read_only=True)):
        async with serving(await memory_of(), settings=settings) as live:
            headers = {"authorization": f"Bearer {settings.token}"}
            viewer = await client.post(live.http, json={"query": QUERY}, headers=headers)
            assert viewer.json() == {"data": {"viewer": {"roles": ["READ"]}}}
            refused = await client.post(live.http, json={"query": MUTATION}, headers=headers)
            assert refused.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_without_a_way_to_log_in_nobody_is_let_in(client: httpx.AsyncClient) -> None:
    """The command line makes a token; an app that is made without one stays closed."""
    async with serving(await memory_of(), settings=Settings()) as live:
        for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer None"}):
            assert (await client.post(live.http, json={"query": QUERY}, headers=headers)).status_code == 401
