"""What those who watch over a site read of who comes and goes, and how guessing is slowed."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from schema.roles import Role
from server.auth.failed_logins import PER_MINUTE, may_be_guessed
from server.auth.identity import Identity
from server.auth.rate_limit import RateLimit
from server.auth.security_log import SecurityLog
from server.auth.token_file import TokenLine, add_line, hash_of, new_token
from server.auth.visitor import Visitor
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

RANDOM = new_token()
CHOSEN = "a-token-that-somebody-chose"
QUERY = {"query": "query Here { __typename }"}
MUTATION = {"query": 'mutation Change { createStudy(input: {name: "new"}) { created } }'}
SECURITY = "merlin_graphql.security"


@pytest.fixture(params=[True, False], ids=["compiled", "general"])
async def live(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """For its limits no time passes."""
    monkeypatch.setattr(RateLimit, "__init__", functools.partialmethod(RateLimit.__init__, now=lambda: 100.0))
    path = tmp_path / "tokens"
    add_line(path, TokenLine("dashboard", Role.READ, hash_of(RANDOM)))
    settings = Settings(token=CHOSEN, token_file=path, compiled=request.param)
    async with serving(await memory_of(), settings=settings) as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        yield client


def bearer(token: str, id_: str = "mine") -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "x-request-id": id_}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == SECURITY]


async def greet(live: Live, token: str) -> tuple[int | None, str | None]:
    """The code and the reason by which a websocket is closed."""
    protocol = Subprotocol("graphql-transport-ws")
    async with asyncio.timeout(DEADLINE), connect(live.ws, subprotocols=[protocol]) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"token": token}}))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        return socket.close_code, socket.close_reason


async def test_each_refusal_is_a_line(live: Live, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """With code, address, protocol and request id, and nothing of what was shown; that nothing was shown is none."""
    caplog.set_level(logging.INFO)
    base = live.http.removesuffix("/graphql")
    await client.post(live.http, json=QUERY)
    await client.post(live.http, json=QUERY, headers=bearer("wrong-1"))
    await client.post(live.http, json=QUERY, headers=bearer("wrong-2") | {"accept": "text/event-stream"})
    await client.post(f"{base}/login", data={"token": "wrong-3"}, headers={"x-request-id": "mine"})
    await client.get(f"{base}/metrics", headers=bearer("wrong-4"))
    await client.get(live.http, params=QUERY, headers={"origin": "https://evil.example", "x-request-id": "mine"})
    assert (await greet(live, "wrong-5"))[0] == 4401
    refused = "refused: address=127.0.0.1 protocol={} code={} request="
    expected = [refused.format(kind, "INVALID_TOKEN") for kind in ("http", "sse", "http", "http", "websocket")]
    expected.insert(4, refused.format("http", "FORBIDDEN"))
    told = lines(caplog)
    assert [line.rpartition("=")[0] + "=" for line in told] == expected
    assert all(line.endswith("request=mine") for line in told[:5])
    assert re.search(r"request=[0-9a-f]{16}$", told[5])
    assert "wrong" not in "".join(told)


async def test_sessions_and_what_a_role_forbids_are_lines(
    live: Live, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A session by the beginning of its id, somebody known by a name that says where it comes from."""
    caplog.set_level(logging.INFO)
    base = live.http.removesuffix("/graphql")
    await client.post(f"{base}/login", data={"token": RANDOM})
    (cookie,) = client.cookies.values()
    await client.post(live.http, json=MUTATION)
    await client.post(f"{base}/logout")
    await client.post(live.http, json=QUERY, headers={"cookie": f"merlin_graphql_{live.port}={cookie}"})
    told = [re.sub(r"request=\w+|(?<=session=)[\w-]{8}(?= )", "", line).strip() for line in lines(caplog)]
    who = "address=127.0.0.1 protocol=http who=token:dashboard"
    assert told == [
        f"session begun: {who} session=",
        f'forbidden: {who} what="mutation Change"',
        f"session ended: {who} session=",
        "refused: address=127.0.0.1 protocol=http code=INVALID_TOKEN",
    ]
    ids = {line.partition("session=")[2].split(" ")[0] for line in lines(caplog) if "session=" in line}
    assert len(ids) == 1
    assert cookie not in "".join(lines(caplog))


async def test_guessing_is_slowed(live: Live, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """Ten a minute of an address are looked at, over all protocols: the right one among the next ones is not found."""
    base = live.http.removesuffix("/graphql")
    statuses = [(await client.post(live.http, json=QUERY, headers=bearer(f"guess-{n}"))).status_code for n in range(40)]
    assert statuses == [401] * PER_MINUTE + [429] * (40 - PER_MINUTE)
    found = await client.post(live.http, json=QUERY, headers=bearer(CHOSEN))
    assert (found.status_code, found.json()["errors"][0]["extensions"]["code"]) == (429, "RATE_LIMITED")
    assert 0 < int(found.headers["retry-after"]) <= 6
    assert (await client.post(f"{base}/login", data={"token": CHOSEN})).status_code == 429
    assert (await client.get(f"{base}/", params={"token": CHOSEN})).status_code == 429
    assert (await greet(live, CHOSEN)) == (1013, "Too many wrong tokens: try again in 6 s.")
    assert len(lines(caplog)) <= 31


async def test_who_cannot_be_guessed_goes_on(live: Live, client: httpx.AsyncClient) -> None:
    """A login node's users share an address: nobody who has a random token, or a session, is locked out by another."""
    await client.post(live.http.replace("graphql", "login"), data={"token": CHOSEN})
    cookies, client.cookies = client.cookies, httpx.Cookies()
    for number in range(PER_MINUTE + 5):
        await client.post(live.http, json=QUERY, headers=bearer(f"guess-{number}"))
    for _ in range(3):
        assert (await client.post(live.http, json=QUERY, headers=bearer(RANDOM))).status_code == 200
    wrong = await client.post(live.http, json=QUERY, headers=bearer(new_token()))
    assert wrong.status_code == 429
    client.cookies = cookies
    assert (await client.post(live.http, json=QUERY)).status_code == 200


def test_a_name_is_one_word(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that looks like the rest of the line."""
    identity = Identity('jwt:ada what=nothing" request=-', Role.READ)
    SecurityLog().forbidden(Visitor({}, "local", "http"), identity, "query Here")
    assert lines(caplog) == [
        'forbidden: address=local protocol=http who="jwt:ada what=nothing\\" request=-" what="query Here" request=-'
    ]


@pytest.mark.parametrize(
    ("token", "may_be_one"),
    [
        ("mgt_" + "z" * 43, False),
        (f"{'a' * 36}.{'b' * 80}.{'c' * 86}", False),
        (CHOSEN, True),
        ("mgt_" + "z" * 43 + "\n", True),
        ("mgt_short", True),
        ("a.b.c", True),
        ("", False),
    ],
)
def test_random_tokens_are_no_guesses(token: str, may_be_one: bool) -> None:
    """256 bits of ours, or a signature."""
    assert not may_be_guessed(new_token())
    assert may_be_guessed(token) is may_be_one


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("local", "local"),
    ],
)
def test_all_addresses_of_a_host_are_one(address: str, network: str) -> None:
    """Of IPv6 it has 2^64."""
    headers: dict[str, Any] = {}
    assert Visitor(headers, address, "http").network == network
