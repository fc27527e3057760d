"""Sessions end when their browser logs out, at every server of the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from server.auth import ended_sessions
from server.auth.ended_sessions import EndedSessions
from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.errors import BackendUnavailableError
from server.settings import Settings, SettingsError
from tests.conftest import Store
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of
from tests.support.writers import SQLiteWriter

pytestmark = pytest.mark.anyio

TOKEN = "the-token-of-the-owner"
SETTINGS = Settings(token=TOKEN, session_key="the-key-of-both-servers-of-this-site")
QUERY = {"query": "{ __typename }"}


@asynccontextmanager
async def cookie_of(live: Live) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A browser that has logged in, and its cookie's value, as a thief has it."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as browser:
        await browser.post("/login", data={"token": TOKEN})
        yield browser, next(iter(browser.cookies.values()))


async def status_of(live: Live, value: str) -> int:
    async with httpx.AsyncClient(timeout=DEADLINE) as thief:
        headers = {"cookie": f"merlin_graphql_{live.port}={value}"}
        return (await thief.post(live.http, json=QUERY, headers=headers)).status_code


async def test_a_cookie_is_worth_nothing_behind_its_logout() -> None:
    """Whoever has kept it; another session of the same token goes on."""
    async with serving(await memory_of(), settings=SETTINGS) as live, cookie_of(live) as (other, _):
        async with cookie_of(live) as (browser, value):
            assert await status_of(live, value) == 200
            await browser.post("/logout")
            assert await status_of(live, value) == 401
        assert (await other.post("/graphql", json=QUERY)).status_code == 200


async def test_a_new_session_ends_the_one_before() -> None:
    """Of the same browser: whoever has kept that cookie is not logged in by its next login."""
    async with serving(await memory_of(), settings=SETTINGS) as live, cookie_of(live) as (browser, value):
        await browser.post("/login", data={"token": TOKEN})
        assert (await browser.post("/graphql", json=QUERY)).status_code == 200
        assert await status_of(live, value) == 401


async def test_a_socket_ends_with_its_session() -> None:
    """By 4401, like one whose token ends."""
    async with (
        asyncio.timeout(DEADLINE),
        serving(await memory_of(), settings=SETTINGS) as live,
        cookie_of(live) as (browser, value),
        connect(
            live.ws,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers={"cookie": f"merlin_graphql_{live.port}={value}"},
        ) as socket,
    ):
        await socket.send('{"type": "connection_init"}')
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        await browser.post("/logout")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4401, "This session was ended: log in again.")


async def test_servers_of_one_database_agree(store: Store) -> None:
    """A session that is ended at one of them is over at the other within a second, and at one that starts later."""
    async with AsyncExitStack() as stack:

        async def start() -> Live:
            backend = make_backend(store.url, BackendOptions())
            await backend.open()
            return await stack.enter_async_context(serving(backend, settings=SETTINGS))

        first, second = await start(), await start()
        browser, value = await stack.enter_async_context(cookie_of(first))
        assert await status_of(second, value) == 200
        await browser.post("/logout")
        async with asyncio.timeout(DEADLINE):
            while await status_of(second, value) != 401:
                await asyncio.sleep(0.05)
        third = await start()
        async with asyncio.timeout(DEADLINE):
            while await status_of(third, value) != 401:
                await asyncio.sleep(0.05)
        created = 'mutation { createStudy(input: {name: "new"}) { created } }'
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = await browser.post("/graphql", json={"query": created}, headers=headers)
        assert answer.json()["data"] == {"createStudy": {"created": True}}  # Merlin's records stand beside it


async def test_messages_are_kept_beside_the_records(backend: ResultsBackend) -> None:
    """The newest of a board, with their times; there are none before the first."""
    assert await backend.messages("board", 0) == {}
    for number in (3, 1, 2, 4):
        await backend.leave_message("board", f"message {number}", float(number), most=3)
    await backend.leave_message("board", "message 2", 5.0, most=3)
    await backend.leave_message("another", "message", 9.0, most=3)
    assert await backend.messages("board", 0) == {"message 3": 3.0, "message 4": 4.0, "message 2": 5.0}
    assert await backend.messages("board", 4.0) == {"message 4": 4.0, "message 2": 5.0}
    assert [batch async for batch in backend.load() if batch] == []


async def test_an_sqlite_file_with_messages_only_is_one_of_merlins(tmp_path: Path) -> None:
    """As it is after Merlin's flush, and a logout."""
    url = f"sqlite:///{tmp_path}/merlin.db"
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.leave_message("board", "message", 1.0, most=3)
    SQLiteWriter(tmp_path / "merlin.db").flush()
    await backend.close()
    again = make_backend(url, BackendOptions())
    await again.open()
    assert await again.messages("board", 0) == {"message": 1.0}
    await again.close()


async def test_an_outage_ends_sessions_here_and_tells_the_others_later(caplog: pytest.LogCaptureFixture) -> None:
    """And is told in the log, once."""
    is_down = True

    class Unreachable(MemoryBackend):
        async def leave_message(self, board: str, message: str, at: float, *, most: int) -> None:
            if is_down:
                raise BackendUnavailableError("It is away.")
            await super().leave_message(board, message, at, most=most)

    backend, ended = Unreachable(), EndedSessions(3600)
    sharing = asyncio.create_task(ended.share(backend))
    ended.end("one")
    assert ended.holds("one", 0)
    ended.end("two")
    await until(lambda: "It is away." in caplog.text)
    is_down = False
    ended.end("three")
    async with asyncio.timeout(DEADLINE):
        while set(await backend.messages("ended-sessions", 0)) != {"one", "two", "three"}:
            await asyncio.sleep(0.01)
    assert caplog.text.count("It is away.") == 1
    sharing.cancel()


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_nobody_comes_back_by_ending_many_others(steps: list[bool]) -> None:
    """Of however many, each session that was ended stays so; with few of them, the others go on."""
    clock = 1_000.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: clock)
        patch.setattr(ended_sessions, "MAX_ENDED", 5)
        ended = EndedSessions(3600)
        begun: dict[str, float] = {}
        over: set[str] = set()
        for number, is_ended in enumerate(steps):
            clock += 1
            id_ = str(number)
            begun[id_] = clock
            clock += 1
            if is_ended:
                ended.end(id_)
                over.add(id_)
            assert all(ended.holds(id_, begun[id_]) for id_ in over)
            assert len(ended._ended) <= 5
            if len(over) <= 5:
                assert not any(ended.holds(id_, at) for id_, at in begun.items() if id_ not in over)


def test_what_would_have_ended_by_itself_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a year of logouts takes no more room than a day's."""
    clock = 1_000.0
    monkeypatch.setattr("time.time", lambda: clock)
    ended = EndedSessions(3600)
    for number in range(100):
        ended.end(str(number))
        clock += 600
    assert len(ended._ended) <= 7


@pytest.mark.parametrize("key", ["x", "k" * 31])
def test_a_short_key_is_refused(key: str) -> None:
    """Whoever has a cookie could find it by trying."""
    with pytest.raises(SettingsError, match=r"session-key: .* use 32 random characters or more") as refused:
        Settings(session_key=key)
    assert "kkk" not in str(refused.value)
