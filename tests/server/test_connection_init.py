"""The token in the payload of `connection_init`, by the names that clients use for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from server.auth.connection_init import authorization_in
from server.errors import RequestError
from server.settings import Settings
from tests.support.live import DEADLINE, serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

TOKEN = "secret" * 4
BEARER = f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "payload",
    [
        {"Authorization": BEARER},
        {"authorization": BEARER},
        {"headers": {"Authorization": BEARER}},
        {"Headers": {"AUTHORIZATION": BEARER, "x-other": 1}},
        {"authToken": TOKEN},
        {"authtoken": BEARER},
        {"token": TOKEN},
        {"token": TOKEN, "authToken": BEARER, "headers": {"authorization": BEARER}},
        {"token": "", "authToken": None, "headers": {"authorization": BEARER}},
        {"headers": None, "token": TOKEN},
    ],
    ids=json.dumps,
)
def test_a_token_is_found_where_clients_put_it(payload: dict[str, Any]) -> None:
    """In several places, too, if it is the same."""
    assert authorization_in(payload) == BEARER


@pytest.mark.parametrize("payload", [{}, {"token": ""}, {"authorization": None}, {"headers": {}}, {"other": TOKEN}])
def test_a_payload_may_have_no_token(payload: dict[str, Any]) -> None:
    """Then the headers of the handshake count."""
    assert authorization_in(payload) is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"token": TOKEN, "headers": {"Authorization": "Bearer b"}}, "different tokens in headers.Authorization and token"),
    ({"token": [TOKEN]}, "token of connection_init must be a text"),
    ({"headers": {"Authorization": {"Bearer": TOKEN}}}, "headers.Authorization of connection_init must be a text"),
    ({"headers": [["Authorization", BEARER]]}, "headers of connection_init must be an object"),
]


@pytest.mark.parametrize(("payload", "message"), REFUSED)
def test_what_is_no_token_is_named(payload: dict[str, Any], message: str) -> None:
    """By its place; what it holds is not repeated."""
    with pytest.raises(RequestError) as error:
        authorization_in(payload)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


async def test_a_websocket_is_opened_by_each_and_closed_by_what_is_none() -> None:
    """4400 with the reason, after which no client tries again."""
    good: list[dict[str, Any]] = [{"authToken": TOKEN}, {"headers": {"Authorization": BEARER}}]
    async with serving(await memory_of(), settings=Settings(token=TOKEN)) as live, asyncio.timeout(DEADLINE):
        for payload in (*good, *(payload for payload, _ in REFUSED)):
            async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
                await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
                if payload in good:
                    assert json.loads(await socket.recv()) == {"type": "connection_ack"}
                    continue
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == 4400
                assert "connection_init" in (socket.close_reason or "")
