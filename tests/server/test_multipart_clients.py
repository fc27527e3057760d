"""The clients that speak multipart/mixed, in Node: Apollo's HttpLink alone, urql, Relay and meros."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.models import EntityKind, Entry, Key, RunModel
from server.protocols import stream
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.pages import block
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

CHANGES = "subscription { runChanges(snapshot: true) { kind runId run { id workspace } } }"
DEFERRED = """
query Runs { runs(first: 2) { totalCount ...Rest @defer nodes @stream(initialCount: 0) { id } } }
fragment Rest on RunConnection { edges { node { id workspace } } }
"""
TOKEN = "a-token-of-twenty-characters-or-more"
ADDRESS = "http://localhost:8000/graphql"
HEADERS = "headers: { authorization: `Bearer ${token}` }"
PAGE = "docs/clients.md"
WHOLE = {
    "runs": {
        "totalCount": 1,
        "edges": [{"node": {"id": uid(1), "workspace": "/there"}}],
        "nodes": [{"id": uid(1)}],
    }
}
"""What is deferred, with its workspace, and the list that is streamed."""
IN_PARTS = HEADERS.replace("{", '{ accept: "multipart/mixed",', 1)
RELAY_CONFIG = {"src": "./src", "schema": "./schema.graphql", "language": "javascript", "eagerEsModules": True}
RELAY_SOURCE = """
import { graphql } from "relay-runtime";
export const query = graphql`query RunsQuery { runs(first: 2) { totalCount ...RunsQuery_rest @defer } }`;
export const fragment = graphql`fragment RunsQuery_rest on RunConnection { nodes { id workspace } }`;
"""
SUBSCRIBING = {
    "Apollo": ("apollo_subscription", "RetryLink", HEADERS),
    "urql": ("urql_subscription", "exchanges: [fetchExchange]", HEADERS),
    "urql in parts": ("urql_subscription", "exchanges: [fetchExchange]", IN_PARTS),
    "Relay, by Apollo's function": ("relay_subscription", "createFetchMultipartSubscription", HEADERS),
    "meros": ("meros_subscription", None, HEADERS),
}
"""A client's program, what its recipe in the documentation has, and the headers that it sends."""


def told(kind: str, record: RunModel) -> Any:
    shown = {"id": record.id, "workspace": record.workspace}
    return {"data": {"runChanges": {"kind": kind, "runId": record.id, "run": shown}}}


def mark(kind: str) -> Any:
    return {"data": {"runChanges": {"kind": kind, "runId": "", "run": None}}}


SNAPSHOT = [mark("SNAPSHOT_BEGIN"), told("SNAPSHOT", run(1, "/there")), mark("SNAPSHOT_END")]


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
async def started(
    live: Live, name: str, recipe: str | None, *arguments: str, instead: Mapping[str, str] = {}
) -> AsyncIterator[Client]:
    """`recipe`: what the client's recipe in the documentation has; None if it has none. `instead`: texts to replace."""
    assert NODE is not None
    client = "" if recipe is None else block(PAGE, recipe, "js")
    program = f"const token = '{TOKEN}';\n{client}\n{(CLIENTS / name).with_suffix('.js').read_text()}"
    for text, other in {ADDRESS: live.http, **instead}.items():
        program = program.replace(text, other)
    process = await asyncio.create_subprocess_exec(
        *(NODE, "--input-type=module", "--eval", program, *arguments),
        cwd=CLIENTS,
        stdout=asyncio.subprocess.PIPE,
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
    name, recipe, headers = SUBSCRIBING[client]
    async with serving(await memory_of(run(1, "/there"))) as live:
        async with started(live, name, recipe, CHANGES, "4", instead={HEADERS: headers}) as subscriber:
            assert [await subscriber.hears() for _ in SNAPSHOT] == SNAPSHOT
            await asyncio.sleep(0.1)  # some heartbeats
            create(live, run(2, "/new"))
            assert await subscriber.hears() == told("CREATED", run(2, "/new"))
            assert await subscriber.ends() == 0
        await until(lambda: live.database.changes.followers == 0)


@pytest.mark.parametrize("client", ["Apollo", "urql", "Relay, by Apollo's function"])
async def test_a_client_is_told_why_it_may_not_subscribe(client: str) -> None:
    """The message of the refusal is among what it delivers."""
    name, recipe, _ = SUBSCRIBING[client]
    async with serving(await memory_of()) as live, started(live, name, recipe, "subscription { nope }", "1") as one:
        refused = await one.hears()
        assert "Cannot query field 'nope' on type 'Subscription'." in refused["message"]


async def test_apollo_subscribes_again_after_a_restart() -> None:
    """By its RetryLink: a server that ends leaves the response incomplete."""
    async with AsyncExitStack() as until_heard:
        async with serving(await memory_of(run(1, "/there"))) as live:
            apollo = await until_heard.enter_async_context(
                started(live, "apollo_subscription", "RetryLink", CHANGES, "6")
            )
            assert [await apollo.hears() for _ in SNAPSHOT] == SNAPSHOT
        async with serving(await memory_of(run(1, "/there")), port=live.port):
            assert [await apollo.hears() for _ in SNAPSHOT] == SNAPSHOT
            assert await apollo.ends() == 0


async def test_apollo_does_not_try_again_with_an_ended_token(tmp_path: Path) -> None:
    """It is told that its subscription ends, and why."""
    tokens = tmp_path / "tokens"
    add_line(tokens, TokenLine("reader", Role.READ, hash_of(TOKEN)))
    async with (
        serving(await memory_of(run(1, "/there")), settings=Settings(token_file=tokens)) as live,
        started(live, "apollo_subscription", "RetryLink", CHANGES, "5") as apollo,
    ):
        assert [await apollo.hears() for _ in SNAPSHOT] == SNAPSHOT
        tokens.write_text("")
        refused = await apollo.hears()
        assert refused["error"] == "CombinedProtocolErrors"
        assert "no longer valid" in refused["message"]
        assert await apollo.hears() in ({"complete": True}, None)
        assert await apollo.ends() == 0


@pytest.mark.parametrize(
    ("handler", "headers"),
    [("GraphQL17Alpha9Handler", HEADERS), ("Defer20220824Handler", IN_PARTS)],
    ids=["in JSON", "in a part"],
)
async def test_apollo_takes_a_deferred_answer_in_one_piece(handler: str, headers: str) -> None:
    """With either of its handlers, in JSON and in parts: the data is complete at once."""
    recipe = "GraphQL17Alpha9Handler"
    async with (
        serving(await memory_of(run(1, "/there"))) as live,
        started(live, "apollo_defer", recipe, DEFERRED, instead={HEADERS: headers, recipe: handler}) as apollo,
    ):
        assert await apollo.hears() == {"data": WHOLE, "dataState": "complete"}
        assert await apollo.hears() is None


@pytest.mark.parametrize("headers", [HEADERS, IN_PARTS], ids=["in JSON", "in a part"])
async def test_urql_takes_a_deferred_answer_in_one_piece(headers: str) -> None:
    """In JSON and in parts, and knows that nothing follows."""
    async with (
        serving(await memory_of(run(1, "/there"))) as live,
        started(live, "urql_defer", "exchanges: [fetchExchange]", DEFERRED, instead={HEADERS: headers}) as urql,
    ):
        assert await urql.hears() == {"data": WHOLE, "hasNext": False, "stale": False}
        assert await urql.hears() is None


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
        started(live, "relay_defer", None, str(tmp_path / "src" / "__generated__")) as relay,
    ):
        assert await relay.hears() == {
            "totalCount": 1,
            "data": {"nodes": [{"id": uid(1), "workspace": "/there"}]},
            "isMissingData": False,
        }
