"""Documents that are named by their hash: trusted ones, and automatic persisted queries, over every protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from schema.operation import OperationError
from server.contract.manifest import hash_of, manifest
from server.protocols.persisted_documents import PersistedDocuments
from server.settings import Settings, SettingsError
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run
from tests.support.serving import run as run_command

pytestmark = pytest.mark.anyio

QUERIES = Path(__file__).parents[2] / "queries"
STATUS = (QUERIES / "DatabaseStatus.graphql").read_text()
OTHER = "{ __typename }"


def persisted(document: str) -> dict[str, Any]:
    return {"persistedQuery": {"version": 1, "sha256Hash": hash_of(document)}}


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Live]]:
    async with (
        serving(await memory_of(run(1)), settings=settings) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as client,
    ):
        yield client, live


async def codes(client: httpx.AsyncClient, body: dict[str, Any]) -> list[str]:
    """Of the errors; none where it is answered. The same by POST and by GET."""
    posted = (await client.post("/graphql", json=body)).json()
    in_url = {key: value if isinstance(value, str) else json.dumps(value) for key, value in body.items()}
    got = (await client.get("/graphql", params=in_url)).json()
    assert posted == got
    return [error["extensions"]["code"] for error in posted.get("errors", [])]


async def test_a_client_registers_a_document_and_then_sends_its_hash() -> None:
    """Apollo's protocol: not found, registered, found; by POST and by GET."""
    async with client_of(Settings(no_auth=True)) as (client, _):
        alone, whole = {"extensions": persisted(OTHER)}, {"query": OTHER, "extensions": persisted(OTHER)}
        assert await codes(client, alone) == ["PERSISTED_QUERY_NOT_FOUND"]
        answer = (await client.post("/graphql", json=alone)).json()
        assert answer["errors"][0]["message"] == "PersistedQueryNotFound"
        assert await codes(client, whole) == []
        assert await codes(client, alone) == []
        assert await codes(client, {"documentId": f"sha256:{hash_of(OTHER)}"}) == []


@pytest.mark.parametrize("only_trusted", [False, True])
async def test_an_empty_query_beside_an_id_is_none(tmp_path: Path, *, only_trusted: bool) -> None:
    """A client whose library insists on a text, such as graphql-ws, sends an empty one; nothing is registered by it."""
    (tmp_path / "trusted.json").write_text(json.dumps({hash_of(OTHER): OTHER}))
    settings = Settings(no_auth=True, trusted_documents=tmp_path / "trusted.json", only_trusted=only_trusted)
    async with client_of(settings) as (client, live):
        for named in ({"extensions": persisted(OTHER)}, {"documentId": hash_of(OTHER)}):
            assert await codes(client, {"query": "", **named}) == []
            async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
                await socket.send('{"type": "connection_init"}')
                await socket.recv()
                await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "", **named}}))
                assert json.loads(await socket.recv())["payload"] == {"data": {"__typename": "Query"}}
        unknown = {"query": "", "extensions": persisted(STATUS)}
        refusal = "UNTRUSTED_DOCUMENT" if only_trusted else "PERSISTED_QUERY_NOT_FOUND"
        assert await codes(client, unknown) == await codes(client, unknown) == [refusal]


async def test_a_hash_of_another_document_is_refused() -> None:
    """And registers nothing."""
    async with client_of(Settings(no_auth=True)) as (client, _):
        assert await codes(client, {"query": STATUS, "extensions": persisted(OTHER)}) == [
            "PERSISTED_QUERY_HASH_MISMATCH"
        ]
        assert await codes(client, {"extensions": persisted(OTHER)}) == ["PERSISTED_QUERY_NOT_FOUND"]


def test_what_is_registered_is_bounded() -> None:
    """What is in use stays, the others go, the oldest first; a very long one is answered, and not kept."""
    documents = PersistedDocuments(max_bytes=10_000)

    def register(text: str) -> None:
        assert documents.text(text, hash_of(text)) == text
        documents.register(text, hash_of(text))

    texts = [f"{{ a{number}: __typename }}" for number in range(30)]
    for text in texts:
        register(text)
        documents.text(None, hash_of(texts[0]))
    assert documents.text(None, hash_of(texts[-1])) == texts[-1]
    with pytest.raises(OperationError):
        documents.text(None, hash_of(texts[1]))
    assert documents.registered.size <= 10_000
    long = "{ __typename }" + " " * 20_000
    register(long)
    with pytest.raises(OperationError):
        documents.text(None, hash_of(long))


async def test_only_a_valid_document_is_registered() -> None:
    """Another one would take the room of what clients use."""
    async with client_of(Settings(no_auth=True)) as (client, _):
        invalid = "{ nothing }"
        request = {"query": invalid, "extensions": persisted(invalid)}
        assert await codes(client, request) == ["GRAPHQL_VALIDATION_FAILED"]
        assert await codes(client, {"extensions": persisted(invalid)}) == ["PERSISTED_QUERY_NOT_FOUND"]


@pytest.mark.parametrize("style", ["apollo", "folder", "map"])
async def test_only_trusted_documents_are_answered(tmp_path: Path, style: str) -> None:
    """By hash, by id or written out; anything else is refused, introspection and registering included."""
    where = QUERIES
    if style != "folder":
        where = tmp_path / "manifest.json"
        where.write_text(manifest([str(QUERIES)], style))
    async with client_of(Settings(no_auth=True, trusted_documents=where, only_trusted=True)) as (client, _):
        answered: list[dict[str, Any]] = [
            {"extensions": persisted(STATUS)},
            {"documentId": hash_of(STATUS)},
            {"query": STATUS},
        ]
        for body in answered:
            assert await codes(client, body) == []
        refused: list[dict[str, Any]] = [
            {"query": OTHER},
            {"query": "{ __schema { types { name } } }"},
            {"query": OTHER, "extensions": persisted(OTHER)},
            {"extensions": persisted(OTHER)},
            {"query": OTHER, "extensions": persisted(STATUS)},
        ]
        for body in refused:
            assert await codes(client, body) == ["UNTRUSTED_DOCUMENT"]


async def test_trusted_documents_go_with_others_where_both_are_let_in() -> None:
    """A trusted one needs no registering."""
    async with client_of(Settings(no_auth=True, trusted_documents=QUERIES)) as (client, _):
        assert await codes(client, {"extensions": persisted(STATUS)}) == []
        assert await codes(client, {"query": OTHER}) == []


async def test_a_trusted_document_has_the_ids_of_its_manifest(tmp_path: Path) -> None:
    """As `documentId`, as Relay's `doc_id` or by Apollo's extension; with its text, too; by POST and by GET."""
    md5, free = hashlib.md5(STATUS.encode()).hexdigest(), {"id": "Status/V1", "body": STATUS}
    relay, apollo = tmp_path / "relay.json", tmp_path / "apollo.json"
    relay.write_text(json.dumps({md5: STATUS}))
    apollo.write_text(json.dumps({"operations": [free]}))
    for where, id_ in ((relay, md5), (apollo, "Status/V1")):
        by_apollo = {"persistedQuery": {"version": 1, "sha256Hash": id_}}
        for only in (True, False):
            async with client_of(Settings(no_auth=True, trusted_documents=where, only_trusted=only)) as (client, _):
                for body in ({"documentId": id_}, {"doc_id": id_}, {"extensions": by_apollo}):
                    assert await codes(client, body) == []
                    assert await codes(client, {**body, "query": STATUS}) == []


async def test_nobody_registers_by_a_weak_hash() -> None:
    """Somebody could make two documents with one MD5: one that is looked at, and one that is executed."""
    md5 = hashlib.md5(OTHER.encode()).hexdigest()
    async with client_of(Settings(no_auth=True)) as (client, _):
        assert await codes(client, {"query": OTHER, "documentId": md5}) == ["PERSISTED_QUERY_HASH_MISMATCH"]
        assert await codes(client, {"documentId": md5}) == ["PERSISTED_QUERY_NOT_FOUND"]


async def test_websockets_and_event_streams_know_them_too() -> None:
    """The same documents, and the same refusals."""
    async with client_of(Settings(no_auth=True, trusted_documents=QUERIES, only_trusted=True)) as (client, live):
        stream = {"accept": "text/event-stream"}
        told = await client.post("/graphql", json={"documentId": hash_of(STATUS)}, headers=stream)
        assert '"data":{"database"' in told.text
        refused = await client.post("/graphql", json={"query": OTHER}, headers=stream)
        assert "UNTRUSTED_DOCUMENT" in refused.text
        async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            await socket.send('{"type": "connection_init"}')
            await socket.recv()
            for payload, type_ in (({"extensions": persisted(STATUS)}, "next"), ({"query": OTHER}, "error")):
                await socket.send(json.dumps({"type": "subscribe", "id": type_, "payload": payload}))
                while (message := json.loads(await socket.recv()))["id"] != type_:
                    pass
                assert message["type"] == type_


@pytest.mark.parametrize(
    "body",
    [
        {"extensions": {"persistedQuery": {"version": 2, "sha256Hash": "a"}}},
        {"extensions": {"persistedQuery": {"version": 1}}},
        {"extensions": {"persistedQuery": "a"}},
        {"documentId": 1},
        {"doc_id": 1},
        {"extensions": {}},
    ],
    ids=str,
)
async def test_what_names_no_document_is_refused(body: dict[str, Any]) -> None:
    """With 400, and what to pass."""
    async with client_of(Settings(no_auth=True)) as (client, _):
        refused = await client.post("/graphql", json=body)
        assert refused.status_code == 400
        assert "pass " in refused.json()["errors"][0]["message"]


def test_only_trusted_needs_to_know_which() -> None:
    """Or nothing would be answered."""
    with pytest.raises(SettingsError, match="also name the trusted documents by --trusted-documents"):
        Settings(only_trusted=True)


def test_a_manifest_that_cannot_be_trusted_ends_the_start(tmp_path: Path) -> None:
    """One line, and the exit code of what can't be read."""
    path = tmp_path / "m.json"
    path.write_text('{"abc": "{ __typename }"}')
    done = run_command(tmp_path / "home", "serve", "--demo", "--trusted-documents", str(path))
    assert done.returncode == 4
    assert done.stderr.startswith(f"merlin-graphql: {path}: abc is not the SHA-256, SHA-1 or MD5 of its document;")
    assert done.stderr.count("\n") == 1
