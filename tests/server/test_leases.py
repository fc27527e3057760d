"""Who was let in stays so only while what let it in holds: on each protocol, from one operation to the next."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from schema.roles import Role
from server.auth import authenticator, ended_sessions, token_file
from server.auth.identity import Identity, expired
from server.auth.lease import Lease
from server.auth.token_file import TokenFile, TokenLine, add_line, hash_of
from server.auth.visitor import Visitor
from server.database.notifier import Notifier
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

TOKEN = "the-token-of-a-writer"
BEARER = {"authorization": f"Bearer {TOKEN}"}
CHANGES = "subscription { changes { kind } }"
MUTATION = 'mutation { createStudy(input: {name: "new"}) { created } }'
ENDED = "The token that you logged in with is no longer valid: log in again."
EXPIRED = "This token has expired: ask for a new one."


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    add_line(path, TokenLine("writer", Role.WRITE, hash_of(TOKEN)))
    return path


@pytest.fixture
async def live(tokens: Path) -> AsyncIterator[Live]:
    async with serving(await memory_of(run(1, "/one")), settings=Settings(token_file=tokens)) as server:
        yield server


@asynccontextmanager
async def socket_of(live: Live, headers: Any = None) -> AsyncIterator[ClientConnection]:
    """Acknowledged."""
    protocol = Subprotocol("graphql-transport-ws")
    async with (
        asyncio.timeout(DEADLINE),
        connect(live.ws, subprotocols=[protocol], additional_headers=headers or BEARER) as socket,
    ):
        await socket.send('{"type": "connection_init"}')
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        yield socket


async def subscribe(socket: ClientConnection, query: str) -> None:
    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))


def revoke(path: Path) -> None:
    path.write_text("")


def expire(path: Path) -> None:
    path.write_text(f"writer WRITE {hash_of(TOKEN)} {datetime.now(UTC).isoformat()}\n")


def replace(path: Path) -> None:
    """By one of the same name."""
    path.write_text(f"writer WRITE {hash_of('another')}\n")


@pytest.mark.parametrize(
    ("end", "code", "reason"), [(revoke, 4401, ENDED), (replace, 4401, ENDED), (expire, 4403, EXPIRED)]
)
async def test_a_websocket_ends_with_its_token(
    live: Live, tokens: Path, end: Callable[[Path], None], code: int, reason: str
) -> None:
    """Also one that only listens, and nothing of its subscription is left. Of an expired token there may be a newer."""
    async with socket_of(live) as socket:
        await subscribe(socket, CHANGES)
        await until(lambda: live.database.changes.followers == 1)
        end(tokens)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (code, reason)
    await until(lambda: live.database.changes.followers == 0)


@pytest.mark.parametrize("end", [revoke, expire])
async def test_an_event_stream_ends_with_its_token(live: Live, tokens: Path, end: Callable[[Path], None]) -> None:
    """By an event that says so, and `complete`."""
    headers = BEARER | {"accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(timeout=DEADLINE) as client,
        client.stream("POST", live.http, json={"query": CHANGES}, headers=headers) as response,
    ):
        await until(lambda: live.database.changes.followers == 1)
        end(tokens)
        text = (await response.aread()).decode()
    assert text.count("event: next") == 1
    assert ('"code":"TOKEN_EXPIRED"' if end is expire else '"code":"INVALID_TOKEN"') in text
    assert text.endswith("event: complete\ndata: \n\n")


async def test_a_socket_of_a_session_ends_with_the_token_that_began_it(live: Live, tokens: Path) -> None:
    """The cookie outlives it by no more than the socket."""
    async with httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as browser:
        await browser.post("/login", data={"token": TOKEN})
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
        async with socket_of(live, cookie) as socket:
            revoke(tokens)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401
        assert (await browser.post("/graphql", json={"query": "{ __typename }"})).status_code == 401


async def test_a_revoked_socket_runs_nothing(live: Live, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the server has ended it yet: each operation asks anew."""
    monkeypatch.setattr(token_file, "_MIN_CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(Lease, "ended", lambda _: asyncio.Event().wait())
    async with socket_of(live) as socket:
        revoke(tokens)
        await subscribe(socket, MUTATION)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4401
    assert live.database.studies.by_name("new") is None


async def test_a_lower_role_counts_from_the_next_operation_on(
    live: Live, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket stays: nothing on it was made for the role before."""
    monkeypatch.setattr(token_file, "_MIN_CHECK_INTERVAL", 0.0)
    async with socket_of(live) as socket:
        tokens.write_text(tokens.read_text().replace("WRITE", "READ"))
        await subscribe(socket, MUTATION)
        (error,) = json.loads(await socket.recv())["payload"]
        assert error["extensions"] == {"code": "FORBIDDEN", "needs": "WRITE"}


@pytest.mark.parametrize("query", [MUTATION, "{ runs { totalCount } }"])
@pytest.mark.parametrize("compiled", [True, False])
async def test_a_request_whose_body_comes_late_asks_again(
    tokens: Path, monkeypatch: pytest.MonkeyPatch, query: str, compiled: bool
) -> None:
    """The token that its head showed is revoked before the body is there: 401, and nothing is done."""
    monkeypatch.setattr(token_file, "_MIN_CHECK_INTERVAL", 0.0)
    has_asked = asyncio.Event()
    identify = TokenFile.identify

    def identify_and_tell(self: TokenFile, hash_: str) -> Identity | None:
        has_asked.set()
        return identify(self, hash_)

    monkeypatch.setattr(TokenFile, "identify", identify_and_tell)
    settings = Settings(token_file=tokens, compiled=compiled)
    async with serving(await memory_of(), settings=settings) as live, asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        body = json.dumps({"query": query}).encode()
        head = f"authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"POST /graphql HTTP/1.1\r\nhost: localhost\r\n{head}\r\n".encode())
        await has_asked.wait()
        revoke(tokens)
        writer.write(body)
        assert b"401" in await reader.readline()
        writer.close()
        assert live.database.studies.by_name("new") is None


def test_a_change_is_noticed_within_a_second() -> None:
    """By the looks at the file, or for sessions that other servers ended, and then those that wake the streams."""
    assert authenticator._CHECK_INTERVAL + max(token_file._MIN_CHECK_INTERVAL, ended_sessions._READ_INTERVAL) < 0.9


async def test_a_lease_waits_for_its_time_and_for_changes() -> None:
    """Whatever comes first; a change that changes nothing does not end it."""
    changes = Notifier()
    answers = [Identity("a", Role.READ, time.time() + 0.05)] * 2

    def ask() -> Identity:
        if not answers:
            raise expired()
        return answers.pop()

    waiting = asyncio.create_task(Lease(Visitor({}, "local", "http"), ask, changes).ended())
    await asyncio.sleep(0)
    changes.notify()
    async with asyncio.timeout(DEADLINE):
        assert str(await waiting) == EXPIRED


LIVE = "subscription { live { viewer { roles } } }"


def demote(path: Path) -> None:
    path.write_text(f"writer READ {hash_of(TOKEN)}\n")


async def roles_of(socket: ClientConnection) -> Any:
    await subscribe(socket, LIVE)
    return json.loads(await socket.recv())["payload"]["data"]["live"]["viewer"]["roles"]


async def test_a_role_that_changes_ends_what_was_made_for_the_one_before(live: Live, tokens: Path) -> None:
    """The client connects again by itself, and finds its new role."""
    async with socket_of(live) as socket:
        assert await roles_of(socket) == ["READ", "WRITE"]
        demote(tokens)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (1013, "Your role has changed: connect again")
    async with socket_of(live) as socket:
        assert await roles_of(socket) == ["READ"]


async def test_an_event_stream_breaks_off_when_the_role_changes(live: Live, tokens: Path) -> None:
    """Without `complete`: an `EventSource` begins again by itself."""
    headers = BEARER | {"accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(timeout=DEADLINE) as client,
        client.stream("POST", live.http, json={"query": CHANGES}, headers=headers) as response,
    ):
        await until(lambda: live.database.changes.followers == 1)
        demote(tokens)
        assert "event: complete" not in (await response.aread()).decode()
