"""The clients of docs/clients.md through restarts: afterwards each shows what the database holds."""

from __future__ import annotations

import ast
import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql.transport.exceptions import TransportConnectionFailed

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.models import EntityKind, Key, RunModel, RunStatus
from server.settings import Settings
from tests.support.browser import CHROMIUM, Page, browsing
from tests.support.documented_clients import IN_NODE, Pages, bundle, in_node, with_node
from tests.support.live import DEADLINE, serving, until
from tests.support.pages import block
from tests.support.records import memory_of, run, uid
from tests.support.restarts import Restarts, a_redis
from tests.support.writers import Writer, writer_to

pytestmark = [pytest.mark.anyio, with_node]

PATIENCE = 60.0
"""Seconds, on a busy machine, from a restart until every client has connected again."""
LONG = 5.0
"""Seconds of a restart after which graphql-ws would have given up by default."""
ACTIVE = (RunStatus.RUNNING, RunStatus.INITIALIZED)
TOKEN = "t" * 20
FINISHED = (RunStatus.COMPLETED, RunStatus.FAILED)


class Others:
    """Writes runs directly into the store, as other programs do, and knows which are active."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._chance = random.Random(19)
        self._numbers = itertools.count(1)
        self._all: dict[str, RunModel] = {}

    @property
    def active(self) -> dict[str, Any]:
        """The workspace and the status, by id."""
        return {id_: (run.workspace, run.run_status.name) for id_, run in self._all.items() if run.run_status in ACTIVE}

    def write(self, times: int) -> None:
        """Creates, changes, finishes and deletes."""
        for _ in range(times):
            match self._chance.choice(["create", "create", "change", "finish", "delete"]):
                case "delete" if self._all:
                    self._delete(self._some())
                case "finish" if self._all:
                    self._save(self._some(), self._chance.choice(FINISHED))
                case "change" if self._all:
                    self._save(self._some(), self._chance.choice(ACTIVE))
                case _:
                    record = run(next(self._numbers), run_status=self._chance.choice(ACTIVE))
                    self._all[record.id] = record
                    self._writer.create(record)

    def delete_all(self) -> None:
        for id_ in [*self._all]:
            self._delete(id_)

    def forget(self) -> None:
        """The store was emptied."""
        self._all.clear()

    def _some(self) -> str:
        return self._chance.choice([*self._all])

    def _save(self, id_: str, status: RunStatus) -> None:
        number = int(id_[-12:])
        self._all[id_] = run(number, run_status=status)
        self._writer.save(self._all[id_])

    def _delete(self, id_: str) -> None:
        del self._all[id_]
        self._writer.delete(Key(EntityKind.RUN, id_))


def example(port: int, names: dict[str, Any]) -> Coroutine[Any, Any, None]:
    """That of docs/subscribing.md with gql; its `runs` are in `names`."""
    source = block("docs/subscribing.md", "WebsocketsTransport", "python").replace(
        "localhost:8000", f"127.0.0.1:{port}"
    )
    names["print"] = lambda *_: None
    coroutine: Coroutine[Any, Any, None] = eval(
        compile(source, "subscribing.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names
    )
    return coroutine


@asynccontextmanager
async def in_python(port: int) -> AsyncIterator[Callable[[], Any]]:
    """Gives what returns the map of the example."""
    names: dict[str, Any] = {"token": "any"}
    following = asyncio.create_task(example(port, names))
    try:
        yield lambda: names.get("runs", {})
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@asynccontextmanager
async def in_browser(port: int, directory: Path, login: str = "") -> AsyncIterator[Page | None]:
    """A page of the server with the client for `EventSource`; None where there is no browser."""
    if CHROMIUM is None:
        yield None
        return
    script = await bundle("event_source", port, directory / "bundled")
    async with browsing() as page:
        await page.open(f"http://127.0.0.1:{port}/graphiql{login}")  # which asks for nothing by itself
        await page.evaluate(f"{script}; 0")
        yield page


def shown(runs: dict[str, Any]) -> dict[str, Any]:
    return {id_: (run["workspace"], run["status"]) for id_, run in runs.items()}


async def all_show(others: Others, pages: Pages, python: Callable[[], Any], page: Page | None) -> None:
    """Waits until each client's map equals the database."""
    maps: dict[str, Any] = {}

    async def look() -> bool:
        seen = {client: pages.runs.get(client) for client in IN_NODE} | {"gql": python()}
        if page is not None:
            seen["EventSource"] = await page.evaluate("window.shown")
        maps.update({client: None if runs is None else shown(runs) for client, runs in seen.items()})
        return all(runs == others.active for runs in maps.values())

    try:
        async with asyncio.timeout(PATIENCE):
            while not await look():
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert maps == dict.fromkeys(maps, others.active)
    assert pages.errors == {}


async def through_restarts(directory: Path, seconds: float) -> None:
    """SIGTERM, SIGKILL and an end of Redis, while others write: after each, each client shows what is there."""
    with (
        a_redis(directory) as redis,
        closing(writer_to(redis.url)) as writer,
        closing(Restarts(directory, "--database", redis.url, "--drain", "2")) as restarts,
    ):
        others = Others(writer)
        others.write(60)
        token = directory / "token"
        token.write_text("any")
        async with (
            in_node(restarts.port, directory / "node", token) as pages,
            in_python(restarts.port) as python,
            in_browser(restarts.port, directory) as page,
        ):
            await all_show(others, pages, python, page)
            others.write(40)
            await all_show(others, pages, python, page)

            await restarts.again(signal.SIGTERM, lambda: others.write(60))
            others.write(20)
            await all_show(others, pages, python, page)

            await restarts.again(signal.SIGKILL, others.delete_all, seconds)
            await all_show(others, pages, python, page)
            others.write(40)
            await all_show(others, pages, python, page)

            await asyncio.to_thread(redis.restart)
            others.forget()
            others.write(40)
            await all_show(others, pages, python, page)


async def test_each_client_shows_what_the_database_holds(tmp_path: Path) -> None:
    """After restarts of the server, one longer than graphql-ws waits by default, and of Redis; no error is shown."""
    await through_restarts(tmp_path, LONG)


@pytest.mark.soak
async def test_a_restart_may_take_long(tmp_path: Path) -> None:
    """Half a minute."""
    await through_restarts(tmp_path, 30.0)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
async def test_an_event_source_that_gave_up_opens_again(tmp_path: Path) -> None:
    """After an answer that it takes as final, such as 429 for too many connections; after 401 it shows the message."""
    settings = Settings(token=TOKEN, max_client_connections=1)
    async with (
        serving(await memory_of(run(1)), settings=settings) as live,
        httpx.AsyncClient(timeout=DEADLINE, headers={"authorization": f"Bearer {TOKEN}"}) as client,
        in_browser(live.port, tmp_path, f"?token={TOKEN}") as page,
    ):
        assert page is not None
        await page.until("window.shown")
        again = await bundle("event_source", live.port, tmp_path / "again")
        await page.open(f"http://127.0.0.1:{live.port}/graphiql")  # which ends the first one
        await until(lambda: not live.database.changes.followers)
        one = {"query": "subscription { changes { kind } }"}
        async with client.stream("POST", live.http, json=one, headers={"accept": "text/event-stream"}):
            await page.evaluate(
                "const open = window.EventSource; window.opened = 0; window.EventSource = class extends open {"
                " constructor(url) { super(url); window.opened += 1; } }; 0"
            )
            await page.evaluate(f"{again}; 0")
            await page.until("window.opened > 1")
        await page.until("window.shown && window.opened > 1")
        assert await page.evaluate("window.failed") is None
        await page.evaluate('fetch("/logout", {method: "POST"}).then(() => 0)')
        await page.until("window.failed?.startsWith('The token') || window.failed?.startsWith('This session')")
        await page.evaluate(f"{again}; 0")
        await page.until("window.failed.startsWith('Not logged in')")


@asynccontextmanager
async def with_tokens(directory: Path, token: str) -> AsyncIterator[tuple[Pages, Path, Path]]:
    """Clients that send a token; gives their pages, the server's token file and the file of the clients' token."""
    tokens, sent = directory / "tokens", directory / "token"
    for each in ("first", "second"):
        add_line(tokens, TokenLine(each, Role.READ, hash_of(each)))
    sent.write_text(token)
    async with (
        serving(await memory_of(run(1)), settings=Settings(token_file=tokens)) as live,
        in_node(live.port, directory / "node", sent) as pages,
    ):
        yield pages, tokens, sent


async def test_a_refused_token_ends_each_client_at_once(tmp_path: Path) -> None:
    """With the server's message: no client tries it again."""
    async with with_tokens(tmp_path, "wrong") as (pages, _, _):
        await until(lambda: set(pages.errors) == set(IN_NODE))
    for client, errors in pages.errors.items():
        assert ["This token is not known here." in error for error in errors] == [True], client


async def test_an_expired_token_is_renewed_and_a_revoked_one_is_not(tmp_path: Path) -> None:
    """By the token that the page has then; over websockets at once, and an event stream ends with the error."""
    sockets = set(IN_NODE) - {"graphql_sse"}
    async with with_tokens(tmp_path, "first") as (pages, tokens, sent):
        await until(lambda: set(pages.runs) == set(IN_NODE))
        pages.runs.clear()
        sent.write_text("second")
        now = datetime.now(UTC).isoformat()
        tokens.write_text(f"first READ {hash_of('first')} {now}\nsecond READ {hash_of('second')}\n")
        await until(lambda: set(pages.runs) >= sockets)
        assert all(set(runs) == {uid(1)} for runs in pages.runs.values())
        assert set(pages.errors) <= {"graphql_sse"}
        tokens.write_text("")
        await until(lambda: set(pages.errors) >= sockets)
        assert all("no longer valid" in pages.errors[client][0] for client in sockets)


async def test_the_example_in_python_ends_when_its_token_is_refused(tmp_path: Path) -> None:
    """At the beginning, and when it is revoked later."""
    tokens = tmp_path / "tokens"
    add_line(tokens, TokenLine("first", Role.READ, hash_of("first")))
    async with (
        asyncio.timeout(DEADLINE),
        serving(await memory_of(run(1)), settings=Settings(token_file=tokens)) as live,
    ):
        with pytest.raises(TransportConnectionFailed) as refused:
            await example(live.port, {"token": "wrong"})
        assert "This token is not known here." in str(refused.value.__cause__)
        names: dict[str, Any] = {"token": "first"}
        following = asyncio.create_task(example(live.port, names))
        await until(lambda: set(names.get("runs", {})) == {uid(1)})
        tokens.write_text("")
        with pytest.raises(TransportConnectionFailed) as ended:
            await following
        assert "no longer valid" in str(ended.value.__cause__)
