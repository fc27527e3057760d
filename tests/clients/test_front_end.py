"""The first lines that people try: the README's in a page of another origin, and curl's."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from server.settings import Settings
from tests.support.browser import CHROMIUM, browsing
from tests.support.live import DEADLINE, serving, until
from tests.support.pages import block
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

TOKEN = "good-token-of-somebody"


async def page(_request: Request) -> Response:
    """One of somebody else's server, which leaves its browser free."""
    return HTMLResponse("<title>front end</title>", headers={"content-security-policy": "connect-src *"})


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
async def test_a_page_of_an_allowed_origin_asks_with_its_token() -> None:
    """With the settings that the README gives, and no others."""
    _token, command = block("README.md", "--allow-origins").splitlines()
    name, value = shlex.split(command)[-2:]
    assert (name, value) == ("--allow-origins", "http://localhost:3000")
    async with (
        serving(await memory_of(), Route("/front-end", page)) as own,
        browsing() as browser,
    ):
        origin = f"http://127.0.0.1:{own.port}"
        settings = Settings(token=TOKEN, allow_origins=origin)
        async with serving(await memory_of(run(1), run(2)), settings=settings) as live:
            await browser.open(f"{origin}/front-end")
            script = block("README.md", "await fetch(", "js").replace("localhost:8000", f"127.0.0.1:{live.port}")
            answer = await browser.evaluate(
                f"(async (token) => {{ {script} return {{ data, errors }} }})({json.dumps(TOKEN)})"
            )
    assert sum(row["count"] for row in answer["data"]["runCounts"]) == 2
    assert "errors" not in answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
async def test_curl_follows_what_changes() -> None:
    """By the line of docs/subscribing.md."""
    mutation = """mutation { createRun(input: { studyName: "s", queues: ["q"], workspace: "/w" }) { run { id } } }"""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN)) as live,
        httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as client,
        asyncio.timeout(DEADLINE),
    ):
        line = block("docs/subscribing.md#Over server-sent events", "curl -N").replace(
            "localhost:8000", f"127.0.0.1:{live.port}"
        )
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"exec {line}"),
            env={**os.environ, "TOKEN": TOKEN},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b":\n"
            await until(lambda: live.database.changes.followers == 1)
            created = (await client.post(live.http, json={"query": mutation})).json()["data"]["createRun"]["run"]
            while created["id"].encode() not in await process.stdout.readline():
                pass
        finally:
            process.terminate()
            await process.wait()
