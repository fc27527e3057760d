"""Watchers: subscribers to all changes of a server, by server-sent events or a websocket, which replay them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.checker import Replay, Told
from tests.support.entities import CHANGES, in_event


async def by_event_stream(url: str) -> AsyncGenerator[Mapping[str, Any]]:
    async with (
        httpx.AsyncClient(timeout=None) as http,
        http.stream("POST", url, json={"query": CHANGES}, headers={"accept": "text/event-stream"}) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


async def by_websocket(url: str) -> AsyncGenerator[Mapping[str, Any]]:
    protocol = Subprotocol("graphql-transport-ws")
    async with connect(url.replace("http", "ws", 1), subprotocols=[protocol]) as socket:
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": CHANGES}}))
        async for message in socket:
            answer = json.loads(message)
            if answer["type"] == "next":
                yield answer["payload"]
            elif answer["type"] != "ping":
                raise ConnectionError(str(answer))


async def follow(answers: AsyncGenerator[Mapping[str, Any]], replay: Replay) -> None:
    try:
        async with aclosing(answers):
            async for answer in answers:
                change = answer["data"]["changes"]
                if change["kind"] in ("SNAPSHOT_BEGIN", "SNAPSHOT_END"):
                    continue
                node = change["node"]
                entity = None if node is None else in_event(change["entityKind"], node)
                seen = [(it["status"], it["isLate"]) for it in (node or {}).get("statusHistory", ())]
                replay.note(change["kind"], change["entityId"], entity, change["revision"], seen)
    except Exception as error:
        replay.violations.append(f"the subscription ended: {error!r}")
        raise


@asynccontextmanager
async def watching(servers: Sequence[str], told: Told) -> AsyncIterator[list[Replay]]:
    """One at each server: by event stream and by websocket in turn."""
    replays = [Replay(told) for _ in servers]
    ways = [by_event_stream, by_websocket] * len(servers)
    tasks = [
        asyncio.create_task(follow(way(url), replay)) for way, url, replay in zip(ways, servers, replays, strict=False)
    ]
    try:
        yield replays
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
