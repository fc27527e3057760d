"""What docs/clients.md says is refused on purpose: each row, with its answer."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from server.settings import Settings
from tests.support.live import Live, serving
from tests.support.pages import ROOT
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

TOKEN = "good-token-of-somebody"
ALLOWED = "http://localhost:3000"
QUERY = {"query": "{ __typename }"}
BODY = json.dumps(QUERY).encode()
JSON = {"content-type": "application/json"}
BEARER = {"authorization": f"Bearer {TOKEN}"}
PREFLIGHT = {"origin": "http://other.example", "access-control-request-method": "POST"}


Refused: TypeAlias = Callable[[Live, httpx.AsyncClient], Awaitable[int]]
"""What is tried, and the status or the close code that it gets."""


async def legacy_websocket(server: Live, _client: httpx.AsyncClient) -> int:
    async with connect(server.ws, subprotocols=[Subprotocol("graphql-ws")]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def mutation_by_get(server: Live, client: httpx.AsyncClient) -> int:
    mutation = "mutation { deleteEverything(input: {}) { userErrors { code } } }"
    return (await client.get(server.http, params={"query": mutation}, headers=BEARER)).status_code


async def upload(server: Live, client: httpx.AsyncClient) -> int:
    form = {"operations": BODY.decode(), "map": '{"0": ["variables.file"]}'}
    return (await client.post(server.http, data=form, files={"0": b"content"}, headers=BEARER)).status_code


async def form(server: Live, client: httpx.AsyncClient) -> int:
    text = await client.post(server.http, content=BODY, headers={**BEARER, "content-type": "text/plain"})
    fields = await client.post(server.http, data=QUERY, headers=BEARER)
    assert text.status_code == fields.status_code
    return text.status_code


async def compressed(server: Live, client: httpx.AsyncClient) -> int:
    headers = {**BEARER, **JSON, "content-encoding": "gzip"}
    return (await client.post(server.http, content=gzip.compress(BODY), headers=headers)).status_code


async def other_origin(server: Live, client: httpx.AsyncClient) -> int:
    return (await client.options(server.http, headers=PREFLIGHT)).status_code


async def cookie_of_other_origin(server: Live, client: httpx.AsyncClient) -> int:
    await client.post(server.http.replace("/graphql", "/login"), data={"token": TOKEN})
    own = await client.post(server.http, json=QUERY)
    assert own.status_code == 200
    return (await client.post(server.http, json=QUERY, headers={"origin": ALLOWED})).status_code


async def other_name(server: Live, client: httpx.AsyncClient) -> int:
    return (await client.post(server.http, json=QUERY, headers={**BEARER, "host": "other.example"})).status_code


async def single_connection(server: Live, client: httpx.AsyncClient) -> int:
    return (await client.put(server.http, headers=BEARER)).status_code


async def token_in_address(server: Live, client: httpx.AsyncClient) -> int:
    return (await client.post(server.http, params={"token": TOKEN}, json=QUERY)).status_code


TRIED: dict[str, Refused] = {
    "subscriptions-transport-ws": legacy_websocket,
    "mutation by GET": mutation_by_get,
    "multipart/form-data": upload,
    "text/plain": form,
    "compressed body": compressed,
    "not allowed": other_origin,
    "cookie": cookie_of_other_origin,
    "host name": other_name,
    "single connection": single_connection,
    "token in the address": token_in_address,
}
"""By words of the row."""


def rows() -> list[list[str]]:
    page = (ROOT / "docs" / "clients.md").read_text()
    section = page.partition("## What is refused on purpose\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [line.split(" | ") for line in lines[1:]]


async def test_what_is_refused_gets_the_answer_of_its_row() -> None:
    """And each row has a reason."""
    answers: dict[str, int] = {}
    for what, answer, why, _instead in rows():
        (words,) = [words for words in TRIED if words in what]
        assert len(why) > 20
        answers[words] = int(answer.rpartition("closed by ")[2].split()[0])
    async with serving(await memory_of(), settings=Settings(token=TOKEN, allow_origins=ALLOWED)) as server:
        told = {}
        for words, tried in TRIED.items():
            async with httpx.AsyncClient() as client:
                told[words] = await tried(server, client)
    assert told == answers
