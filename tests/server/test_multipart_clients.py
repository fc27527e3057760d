"""The clients that speak multipart/mixed, in Node: Apollo's HttpLink alone, urql, Relay and meros."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.models import EntityKind, Entry, Key, RunModel
from server.protocols import stream
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

NODE = shutil.which("node")
CLIENTS = Path(__file__).parents[1] / "clients"
MODULES = CLIENTS.parent / "node_modules"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        NODE is None or not (MODULES / "@apollo/client").exists(), reason="npm has not installed tests/package.json"
    ),
]

CHANGES = "subscription { runChanges(snapshot: true) { kind id run { id workspace } } }"
DEFERRED = """
query Runs { runs(first: 2) { totalCount ...Rest @defer nodes @stream(initialCount: 0) { id } } }
fragment Rest on RunConnection { edges { node { id workspace } } }
"""
RELAY_CONFIG = {"src": "./src", "schema": "./schema.graphql", "language": "javascript", "eagerEsModules": True}
RELAY_SOURCE = """
import { graphql } from "relay-runtime";
export const query = graphql`query RunsQuery { runs(first: 2) { totalCount ...RunsQuery_rest @defer } }`;
export const fragment = graphql`fragment RunsQuery_rest on RunConnection { nodes { id workspace } }`;
"""
SUBSCRIBING = {
    "Apollo": ("apollo_subscription", ()),
    "urql": ("urql_subscription", ()),
    "urql in parts": ("urql_subscription", ("multipart/mixed",)),
    "Relay, by Apollo's function": ("relay_subscription", ()),
    "meros": ("meros_subscription", ()),
}


def told(kind: str, record: RunModel) -> Any:
    shown = {"id": record.id, "workspace": record.workspace}
    return {"data": {"runChanges": {"kind": kind, "id": record.id, "run": shown}}}


def plain(value: Any) -> Any:
    """Without what clients add to know a type again."""
    match value:
        case dict():
            return {key: plain(item) for key, item in value.items() if key != "__typename"}
        case list():
            return [plain(item) for item in value]
        case _:
            return value


class Client:
    """A client as a user writes it, which prints what it is told, a line each."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hears(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = await self._process.stdout.readline()
        return plain(json.loads(line)) if line else None

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()


@asynccontextmanager
async def started(name: str, *arguments: str) -> AsyncIterator[Client]:
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, CLIENTS / f"{name}.js", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def create(live: Live, record: RunModel) -> None:
    live.database.read_model.apply([Entry(Key(EntityKind.RUN, record.id), record)])


@pytest.mark.parametrize("client", SUBSCRIBING)
async def test_a_client_subscribes(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears what there is and what is made, at once and among heartbeats, and is forgotten when it leaves."""
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.02)
    name, more = SUBSCRIBING[client]
    async with serving(await memory_of(run(1, "/there"))) as live:
        async with started(name, live.http, CHANGES, "2", *more) as subscriber:
            assert await subscriber.hears() == told("SNAPSHOT", run(1, "/there"))
            await asyncio.sleep(0.1)  # some heartbeats
            create(live, run(2, "/new"))
            assert await subscriber.hears() == told("CREATED", run(2, "/new"))
            assert await subscriber.ends() == 0
        await until(lambda: live.database.changes.followers == 0)


@pytest.mark.parametrize("client", SUBSCRIBING)
async def test_a_client_is_told_why_it_may_not_subscribe(client: str) -> None:
    """The message of the refusal is among what it delivers."""
    name, more = SUBSCRIBING[client]
    async with serving(await memory_of()) as live, started(name, live.http, "subscription { nope }", "1", *more) as one:
        refused = await one.hears()
        assert "Cannot query field 'nope' on type 'Subscription'." in refused["message"]


async def test_apollo_subscribes_again_after_a_restart() -> None:
    """By its RetryLink: a server that ends lets the response be incomplete."""
    backend = await memory_of(run(1, "/there"))
    async with serving(backend) as live:
        port = live.port
        connecting = started("apollo_subscription", live.http, CHANGES, "2")
        apollo = await connecting.__aenter__()
        assert await apollo.hears() == told("SNAPSHOT", run(1, "/there"))
    try:
        async with serving(await memory_of(run(1, "/there")), port=port):
            assert await apollo.hears() == told("SNAPSHOT", run(1, "/there"))
            assert await apollo.ends() == 0
    finally:
        await connecting.__aexit__(None, None, None)


async def test_apollo_does_not_try_again_with_an_ended_token(tmp_path: Path) -> None:
    """It is told that its subscription ends, and why."""
    tokens = tmp_path / "tokens"
    token = "a-token-of-twenty-characters-or-more"
    add_line(tokens, TokenLine("reader", Role.READ, hash_of(token)))
    async with (
        serving(await memory_of(run(1, "/there")), settings=Settings(token_file=tokens)) as live,
        started("apollo_subscription", live.http, CHANGES, "3", f"Bearer {token}") as apollo,
    ):
        assert await apollo.hears() == told("SNAPSHOT", run(1, "/there"))
        tokens.write_text("")
        refused = await apollo.hears()
        assert refused["error"] == "CombinedProtocolErrors"
        assert await apollo.hears() in ({"complete": True}, None)
        assert await apollo.ends() == 0


@pytest.mark.parametrize("handler", ["Defer20220824Handler", "GraphQL17Alpha9Handler"])
@pytest.mark.parametrize("accept", ["", "multipart/mixed"])
async def test_apollo_takes_a_deferred_answer_in_one_piece(handler: str, accept: str) -> None:
    """With either of its handlers, in JSON and in parts: the data is complete at once."""
    async with (
        serving(await memory_of(run(1, "/there"))) as live,
        started("apollo_defer", live.http, DEFERRED, handler, accept) as apollo,
    ):
        heard = await apollo.hears()
        assert heard == {
            "data": {
                "runs": {
                    "totalCount": 1,
                    "edges": [{"node": {"id": uid(1), "workspace": "/there"}}],
                    "nodes": [{"id": uid(1)}],
                }
            },
            "dataState": "complete",
        }
        assert await apollo.hears() is None


@pytest.mark.skipif(not (MODULES / "relay-compiler").exists(), reason="npm has not installed relay-compiler")
async def test_relay_takes_a_deferred_answer_in_one_piece(tmp_path: Path) -> None:
    """Compiled by its compiler; without the word that the answer is the last one it would go on to wait."""
    assert NODE is not None
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "RunsQuery.js").write_text(RELAY_SOURCE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "relay.config.json").write_text(json.dumps(RELAY_CONFIG))
    shutil.copy(Path(__file__).parents[2] / "schema" / "schema.graphql", tmp_path)
    compiling = await asyncio.create_subprocess_exec(
        *(NODE, MODULES / ".bin" / "relay-compiler", "relay.config.json"), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    written, _ = await compiling.communicate()
    assert compiling.returncode == 0, written.decode()
    async with (
        serving(await memory_of(run(1, "/there"))) as live,
        started("relay_defer", live.http, str(tmp_path / "src" / "__generated__")) as relay,
    ):
        assert await relay.hears() == {
            "totalCount": 1,
            "data": {"nodes": [{"id": uid(1), "workspace": "/there"}]},
            "isMissingData": False,
        }
