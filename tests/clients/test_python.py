"""The recipes for Python in docs/clients.md, as they are written there, against a server with a login."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from server.settings import Settings
from tests.support.backends import free_port
from tests.support.live import serving, until
from tests.support.notebook import Notebook
from tests.support.pages import block
from tests.support.records import memory_of
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio

PAGE = "docs/clients.md"


def cell(has: str) -> str:
    """The block of Python that has a text."""
    return block(PAGE, has, "python")


@pytest.fixture
def httpx_notebook(notebook: Notebook) -> Iterator[Notebook]:
    """With the client and `ask`."""
    notebook.run(cell("class MerlinError"))
    yield notebook
    notebook.names["merlin"].close()


# --- without packages -------------------------------------------------------------------------------------------------


def test_the_standard_library_will_do(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints how many runs there are by status, and raises what the server says of a wrong query."""
    notebook.run(cell("urllib.request.Request("))
    counts = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert int(counts["RUNNING"]) > 0
    with pytest.raises(RuntimeError, match="Cannot query field 'nope'"):
        notebook.names["ask"]("{ nope }")


def test_the_standard_library_says_why_it_was_refused(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the server's, not that of a status."""
    notebook.run(cell("urllib.request.Request("))
    monkeypatch.setenv("TOKEN", "another")
    with pytest.raises(RuntimeError, match="This token is not known here"):
        notebook.names["ask"]("{ __typename }")


def test_requests_asks(notebook: Notebook) -> None:
    """By one line."""
    notebook.run(cell("requests.post("))
    assert notebook.names["answer"]["data"]["runCounts"]


# --- httpx ------------------------------------------------------------------------------------------------------------


def test_httpx_reads_all_pages(httpx_notebook: Notebook) -> None:
    """Each run once, in pages of any size, of a connection at any place."""
    httpx_notebook.run(cell("def nodes("))
    names = httpx_notebook.names
    small = names["RUNS"].replace("first: 500", "first: 7")
    whole = [run["id"] for run in names["nodes"](names["RUNS"], "runs")]
    assert [run["id"] for run in names["nodes"](small, "runs")] == whole
    assert len(set(whole)) == len(whole) == names["ask"]("{ database { runs } }")["database"]["runs"] > 7
    assert {run["status"] for run in names["failed"]} == {"FAILED"}


def test_httpx_raises_with_the_codes(httpx_notebook: Notebook) -> None:
    """Which a program can decide by."""
    names = httpx_notebook.names
    with pytest.raises(names["MerlinError"]) as caught:
        names["ask"]("{ nope }")
    assert caught.value.codes == ["GRAPHQL_VALIDATION_FAILED"]


async def test_httpx_waits_when_it_is_told_to(token: str) -> None:
    """A script that asks more often than it may is slow, and does not fail."""
    waited: list[float] = []
    async with serving(await memory_of(), settings=Settings(token=token, rate_limit=60)) as live:
        notebook = Notebook(f"127.0.0.1:{live.port}")
        notebook.run(cell("class MerlinError"))
        ask, sleep = notebook.names["ask"], notebook.names["time"].sleep

        def note(seconds: float) -> None:
            waited.append(seconds)
            sleep(seconds)

        notebook.names["time"] = SimpleNamespace(sleep=note)
        while not waited:
            assert await asyncio.to_thread(ask, "{ __typename }") == {"__typename": "Query"}
        notebook.names["merlin"].close()
    assert min(waited) >= 1


def test_httpx_creates_once_what_it_sends_twice(httpx_notebook: Notebook) -> None:
    """An answer that is lost on its way is fetched again by the same key."""
    httpx_notebook.run(cell("def create_run("))
    names = httpx_notebook.names
    names["time"] = SimpleNamespace(sleep=lambda _seconds: None)
    send, answers = names["merlin"].post, []

    def lossy(*arguments: Any, **options: Any) -> Any:
        answers.append(send(*arguments, **options))
        if len(answers) == 1:
            raise names["httpx"].ReadError("lost")
        return answers[-1]

    names["merlin"].post = lossy
    created = names["create_run"](studyName="sent_twice", queues=["q"], workspace="/sent/twice")
    assert [answer.json()["data"]["createRun"]["run"]["id"] for answer in answers] == [created, created]
    with pytest.raises(ValueError, match="workspace"):
        names["create_run"](studyName="sent_twice", queues=["q"], workspace="/sent/twice")


def test_httpx_reads_nothing_twice(httpx_notebook: Notebook) -> None:
    """Until something changes."""
    httpx_notebook.run(cell("def refresh("))
    httpx_notebook.run(cell("def create_run("))
    names = httpx_notebook.names
    assert [names["refresh"](), names["refresh"]()] == [True, False]
    before = names["overview"]
    names["create_run"](studyName="newer", queues=["q"], workspace="/something/newer")
    assert names["refresh"]()
    assert names["overview"] != before


def test_httpx_takes_a_proxy_for_no_answer(httpx_notebook: Notebook) -> None:
    """Whose page of an error, while the server starts again, is no JSON."""
    httpx_notebook.run(cell("def subscribe("))
    names = httpx_notebook.names
    names["merlin"].close()
    transport = httpx.MockTransport(lambda _request: httpx.Response(502, html="<h1>Bad Gateway</h1>"))
    names["merlin"] = httpx.Client(base_url="http://localhost", transport=transport)
    for attempt in (lambda: names["ask"]("{ __typename }"), lambda: list(names["subscribe"](names["ACTIVE"]))):
        with pytest.raises(httpx.HTTPStatusError, match="502"):
            attempt()


def test_httpx_ends_a_subscription_that_is_refused(httpx_notebook: Notebook) -> None:
    """A wrong token and a wrong query, which no repetition helps."""
    httpx_notebook.run(cell("def subscribe("))
    names = httpx_notebook.names
    with pytest.raises(names["MerlinError"]) as caught:
        list(names["subscribe"]("subscription { nope }"))
    assert caught.value.codes == ["GRAPHQL_VALIDATION_FAILED"]
    names["merlin"].headers["Authorization"] = "Bearer another"
    with pytest.raises(names["MerlinError"]) as caught:
        names["follow"]()
    assert caught.value.codes == ["INVALID_TOKEN"]


# --- gql --------------------------------------------------------------------------------------------------------------


def test_gql_asks(notebook: Notebook) -> None:
    """With variables."""
    notebook.run(block(f"{PAGE}#Python: gql", "HTTPXTransport(", "python"))
    assert len(notebook.names["runs"]) == 5


async def test_gql_asks_in_a_notebook(notebook: Notebook) -> None:
    """The synchronous transport, where a loop runs already."""
    await notebook.run_async(block(f"{PAGE}#Python: gql", "HTTPXTransport(", "python"))
    assert len(notebook.names["runs"]) == 5


async def test_gql_ends_when_its_token_is_refused(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once."""
    await notebook.run_async(cell("async def changes("))
    monkeypatch.setenv("TOKEN", "another")
    names = notebook.names
    with pytest.raises(names["TransportConnectionFailed"]) as caught:
        await anext(names["changes"](names["ACTIVE"]))
    assert names["is_refused"](caught.value)


# --- both -------------------------------------------------------------------------------------------------------------


class EndedError(Exception):
    """Raised by a pause, which is the only place where `follow` can be ended."""


@asynccontextmanager
async def following(port: str) -> AsyncIterator[tuple[Notebook, list[str]]]:
    """Both recipes at work: the notebook of httpx, and the kinds of the events that gql has received."""
    by_httpx, by_gql, ended = Notebook(f"127.0.0.1:{port}"), Notebook(f"127.0.0.1:{port}"), threading.Event()
    kinds: list[str] = []

    def sleep(_seconds: float) -> None:
        if ended.wait(0.05):
            raise EndedError

    for has in ("class MerlinError", "def create_run(", "def subscribe("):
        by_httpx.run(cell(has))
    by_httpx.names["time"] = SimpleNamespace(sleep=sleep)
    by_gql.names["print"] = lambda kind, _id: kinds.append(kind)
    for has in ("async def changes(", "asyncio.create_task(watch())"):
        await by_gql.run_async(cell(has))
    follower = asyncio.create_task(asyncio.to_thread(by_httpx.names["follow"]))
    try:
        yield by_httpx, kinds
    finally:
        ended.set()
        by_gql.names["task"].cancel()
        told = await asyncio.gather(by_gql.names["task"], follower, return_exceptions=True)
        by_httpx.names["merlin"].close()
    assert [type(result) for result in told] == [asyncio.CancelledError, EndedError]


async def test_subscriptions_begin_again_when_the_server_is_back(tmp_path: Path, token: str) -> None:
    """A run that is gone when the server is back is gone in the client, too; one with odd characters arrives whole."""
    port, workspace = str(free_port()), "/lines\u2028and\u0085more"
    run = {"studyName": "followed", "queues": ["q"], "workspace": workspace, "status": "RUNNING"}
    options: dict[str, Any] = {"login": True, "environ": {"MERLIN_GRAPHQL_TOKEN": token}}
    first = Serving(tmp_path / "first", "--demo", "--port", port, **options)
    with first:
        assert await asyncio.to_thread(lambda: first.url)
        async with following(port) as (notebook, kinds):
            active = notebook.names["active"]
            await until(lambda: len(active) > 1 and kinds.count("SNAPSHOT_END") == 1)
            standing = len(active)
            lost = await asyncio.to_thread(notebook.names["create_run"], **run)
            await until(lambda: lost in active and "CREATED" in kinds)
            assert active[lost]["workspace"] == workspace
            await asyncio.to_thread(first.stop, signal.SIGKILL)
            with Serving(tmp_path / "second", "--demo", "--port", port, **options):
                await until(lambda: lost not in active and kinds.count("SNAPSHOT_END") == 2)
                assert len(active) == standing
                assert kinds.count("SNAPSHOT_BEGIN") == 2
