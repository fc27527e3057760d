"""Measures requests of browsers beside those of programs: `python -m tests.benchmarks.browsers [--requests N]`.

The ASGI app answers the same query, on a database of 20 runs, in this process and without a network. Microseconds of
processor time a request by the fast path and by the slow one, in turns in one run; the medians of 9 turns, and how many
times as much the slow path takes. What the server of HTTP takes, the same for both, is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message

from server.app import App, make_app
from server.database.merlin_database import opened
from server.settings import Settings
from tests.support.records import memory_of, run

TOKEN = "a-token-of-twenty-characters-or-more"
PAGE = "https://dash.example.org"
QUERY = "{ runs(first: 20) { nodes { id workspace status study { name } workers { name } } } }"
TURNS = 9
PROGRAM = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json", "host": "localhost:8000"}
BROWSER = {
    **PROGRAM,
    "origin": PAGE,
    "referer": f"{PAGE}/",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36",
    "accept-language": "en-US,en;q=0.9",
    "accept-encoding": "gzip, deflate, br, zstd",
    "sec-ch-ua": '"Chromium";v="156", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "sec-fetch-dest": "empty",
    "sec-fetch-mode": "cors",
    "sec-fetch-site": "cross-site",
}
REQUESTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "a program": ("POST", {**PROGRAM, "accept": "application/json"}),
    "Apollo in a browser": ("POST", {**BROWSER, "accept": "application/graphql-response+json,application/json;q=0.9"}),
    "the same, traced": (
        "POST",
        {
            **BROWSER,
            "accept": "application/graphql-response+json,application/json;q=0.9",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "baggage": "sentry-environment=production",
        },
    ),
    "urql in a browser, by GET": (
        "GET",
        {
            **BROWSER,
            "accept": "application/graphql-response+json, application/graphql+json, application/json, "
            "text/event-stream, multipart/mixed",
        },
    ),
}


async def answer(app: ASGIApp, scope: Mapping[str, Any], body: bytes) -> int:
    """The status."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(dict(scope), receive, send)
    return statuses[0]


async def microseconds(app: ASGIApp, scope: Mapping[str, Any], body: bytes, requests: int) -> float:
    began = time.process_time()
    for _ in range(requests):
        status = await answer(app, scope, body)
        if status != 200:
            raise RuntimeError(f"It was answered by {status}")
    return (time.process_time() - began) / requests * 1e6


async def measure(requests: int) -> None:
    async with opened(await memory_of(*(run(number) for number in range(20)))) as database:
        app = make_app(Settings(token=TOKEN, allow_origins=PAGE, budget=2**31 - 1), database)
        assert isinstance(app, App)
        async with app.router.lifespan_context(app) as state:
            for name, (method, headers) in REQUESTS.items():
                scope = {
                    "type": "http",
                    "http_version": "1.1",
                    "method": method,
                    "scheme": "http",
                    "path": "/graphql",
                    "raw_path": b"/graphql",
                    "root_path": "",
                    "query_string": urlencode({"query": QUERY}).encode() if method == "GET" else b"",
                    "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
                    "client": ("127.0.0.1", 50_000),
                    "server": ("127.0.0.1", 8000),
                    "state": state,
                }
                body = json.dumps({"query": QUERY}).encode() if method == "POST" else b""
                turns = [
                    [await microseconds(way, scope, body, requests) for way in (app, app._slow_path)]
                    for _ in range(TURNS)
                ]
                fast, slow = (statistics.median(way) for way in zip(*turns, strict=True))
                print(f"{name:28} {fast:7.0f} {slow:7.0f} {slow / fast:5.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="requests a turn")
    asyncio.run(measure(parser.parse_args().requests))


if __name__ == "__main__":
    main()
