"""A notebook and a browser that reach the server through a tunnel, as `ssh -L` makes one: docs/clients.md."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.settings import Settings
from tests.support.browser import CHROMIUM, browsing
from tests.support.live import serving
from tests.support.notebook import Notebook
from tests.support.pages import ROOT, block
from tests.support.records import memory_of
from tests.support.serving import environment

pytestmark = pytest.mark.anyio

TOKEN = "good-token-of-somebody"
PAGE = "docs/clients.md"
SOCKET = """new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://${location.host}/graphql`, "graphql-transport-ws")
  const payload = { query: "subscription { live { viewer { roles } } }" }
  socket.onopen = () => socket.send('{"type": "connection_init"}')
  socket.onclose = (event) => reject(new Error(event.code))
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data)
    if (message.type === "connection_ack") socket.send(JSON.stringify({ id: "1", type: "subscribe", payload }))
    if (message.type === "next") resolve(message.payload.data.live.viewer.roles)
  }
})"""
STREAM = """new Promise((resolve, reject) => {
  const query = "subscription { live { viewer { roles } } }"
  const source = new EventSource("/graphql?" + new URLSearchParams({ query }))
  source.onerror = () => reject(new Error("no stream"))
  source.addEventListener("next", ({ data }) => {
    source.close()
    resolve(JSON.parse(data).data.live.viewer.roles)
  })
})"""


@asynccontextmanager
async def tunnel(target: int | Path) -> AsyncIterator[int]:
    """A port of loopback that leads to another one, or to a Unix socket, and changes nothing on the way."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(target, Path):
            far = await asyncio.open_unix_connection(target)
        else:
            far = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(carry(reader, far[1]), carry(far[0], writer), return_exceptions=True)

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as near:
        yield near.sockets[0].getsockname()[1]


@pytest.fixture
def login_node(tmp_path: Path) -> Iterator[Path]:
    """A home in which the server of the recipe runs, with sample data."""
    home = tmp_path / "home"
    python = f"{sys.executable} -m server"
    script = block(PAGE, "--unix-socket ~/merlin.sock").replace("merlin-graphql serve", f"exec {python} serve")
    script = script.replace("merlin-graphql token", f"{python} token")
    env = environment(home, {"MERLIN_GRAPHQL_DEMO_STILL": "true"})
    with subprocess.Popen(["bash", "-euc", script], cwd=home, env=env, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert any("GraphQL:" in line for line in process.stdout)
        yield home
        process.terminate()


async def test_a_notebook_needs_three_lines(login_node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the tunnel to the Unix socket, with the token from its file, which nobody else can read."""
    monkeypatch.setenv("HOME", str(login_node))
    assert (login_node / ".merlin-token").stat().st_mode & 0o77 == 0
    once, question = block(PAGE, "pathlib.Path(", "python"), block(PAGE, "pd.json_normalize(answer", "python")
    assert len(question.splitlines()) == 3
    async with tunnel(login_node / "merlin.sock") as port:
        shown = await asyncio.to_thread(shown_by, Notebook(f"localhost:{port}"), once, question)
    assert {"id", "status", "launchedAt", "study.name"} <= set(shown.columns)
    assert len(shown) == 48
    # And without a tunnel, on the login node itself.
    (option,) = re.findall(r"give the client `(transport=.*?)`", (ROOT / PAGE).read_text())
    option = option.replace("/home/me", str(login_node))
    there = once.replace("timeout=60", f"timeout=60, {option}")
    assert len(await asyncio.to_thread(shown_by, Notebook("localhost:1"), there, question)) == 48


def shown_by(notebook: Notebook, once: str, question: str) -> Any:
    """The value of the last line, which a notebook shows."""
    notebook.run(once)
    notebook.run(question.replace("pd.json", "shown = pd.json"))
    notebook.names["merlin"].close()
    return notebook.names["shown"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
async def test_a_page_works_through_a_tunnel() -> None:
    """On a port that the server does not know: the login, a query, a websocket and an event stream of its own page."""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN)) as live,
        tunnel(live.port) as own,
        browsing() as page,
    ):
        await page.open(f"http://127.0.0.1:{own}/?token={TOKEN}")
        roles = await page.evaluate(
            """fetch("/graphql", {
                  method: "POST", headers: { "content-type": "application/json" },
                  body: '{"query": "{ viewer { roles } }"}',
                }).then((response) => response.json()).then(({ data }) => data.viewer.roles)"""
        )
        assert roles == ["READ", "WRITE", "ADMIN"]
        assert await page.evaluate(SOCKET) == roles
        assert await page.evaluate(STREAM) == roles


@pytest.mark.parametrize(("allowed", "status"), [("laptop.example.org", 200), ("other.example.org", 421)])
async def test_another_name_is_allowed_by_a_setting(allowed: str, status: int) -> None:
    """The refusal names it."""
    settings = Settings(no_auth=True, allow_hosts=allowed)
    async with (
        serving(await memory_of(), settings=settings) as live,
        tunnel(live.port) as own,
        httpx.AsyncClient() as client,
    ):
        url, host = f"http://127.0.0.1:{own}/graphql", {"host": f"laptop.example.org:{own}"}
        answer = await client.post(url, json={"query": "{ __typename }"}, headers=host)
    assert answer.status_code == status
    assert ("allow-hosts" in answer.text) == (status == 421)
