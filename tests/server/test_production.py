"""`--profile production` against strangers and snoopers: the checks of graphql-cop, and what messages give away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from graphql import get_introspection_query

from schema.build import make_schema
from schema.engine import Engine
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.errors import BackendUnavailableError
from server.settings import PRODUCTION, Settings, read_settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run
from tests.support.servers import RedisServer, binaries
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio

STRAWBERRY = make_schema()
TOKEN = "the-token-of-the-owner"
QUERIES = sorted((Path(__file__).parents[2] / "queries").rglob("*.graphql"))


def production(**environ: str) -> Settings:
    return read_settings({"MERLIN_GRAPHQL_PROFILE": PRODUCTION, **environ})


@pytest.fixture(params=["with a token", "open"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """Of a strict server, that lets this client in."""
    is_open = request.param == "open"
    environ = {"MERLIN_GRAPHQL_NO_AUTH": "yes"} if is_open else {"MERLIN_GRAPHQL_TOKEN": TOKEN}
    async with serving(await memory_of(run(1, "/one")), settings=production(**environ)) as live:
        headers = {} if is_open else {"authorization": f"Bearer {TOKEN}"}
        base = f"http://127.0.0.1:{live.port}"
        async with httpx.AsyncClient(base_url=base, timeout=DEADLINE, headers=headers) as client:
            assert (await client.post("/graphql", json={"query": "{ __typename }"})).json()["data"]
            yield client


@dataclass(frozen=True)
class Check:
    """One of graphql-cop's: what is sent, and what of the answer would be a finding."""

    is_finding: Callable[[httpx.Response], bool]
    query: str = ""
    send: Mapping[str, Any] | None = None
    method: str = "POST"
    path: str = "/graphql"


def has_data(answer: httpx.Response) -> bool:
    return "__typename" in answer.text and "data" in answer.text and answer.status_code == 200


def names_an_ide(answer: httpx.Response) -> bool:
    return any(word in answer.text.lower() for word in ("graphiql.min.css", "graphql playground", "graphiql", "apollo"))


def told(answer: httpx.Response) -> list[dict[str, Any]]:
    try:
        given = answer.json()
    except ValueError:
        return []
    return list(given.get("errors", [])) if isinstance(given, dict) else []


def many(count: int, part: Callable[[int], str]) -> str:
    return " ".join(map(part, range(count)))


CIRCULAR = "query { __schema { ...A } } fragment A on __Schema { __typename ...B } fragment B on __Schema { ...A }"
DEEP = "query { __schema { types { " + "fields { type { " * 5 + "name" + " } }" * 5 + " } } }"
# Without graphql-cop's check of queries by GET, which are answered: other sites can't use them (test_get_queries.py).
CHECKS = {
    "alias overloading": Check(
        lambda answer: "alias100" in answer.text and answer.status_code == 200 and "data" in answer.json(),
        "query { " + many(101, lambda n: f"alias{n}: __typename") + " }",
    ),
    "array batching": Check(
        lambda answer: isinstance(answer.json(), list),
        send={"json": [{"query": "query { __typename }"}] * 11},  # ten are answered, and each costs what it costs
    ),
    "directive overloading": Check(lambda answer: len(told(answer)) >= 10, "query { __typename " + "@aa" * 10 + " }"),
    "circular query by introspection": Check(lambda answer: "data" in answer.json(), DEEP),
    "circular fragment": Check(lambda answer: not told(answer), CIRCULAR),
    "field duplication": Check(has_data, "query { " + "__typename \n" * 500 + " }"),
    "introspection": Check(lambda answer: "data" in answer.json(), get_introspection_query()),
    "field suggestions": Check(
        lambda answer: "did you mean" in answer.text.lower(), "query { __schema { directive } }"
    ),
    "suggestions of arguments": Check(
        lambda answer: "did you mean" in answer.text.lower(), "query { runs(fist: 1) { totalCunt nodes { idd } } }"
    ),
    "tracing": Check(lambda answer: "tracing" in answer.text or "stacktrace" in answer.text, "query { __typename }"),
    "unhandled errors": Check(
        lambda answer: any("exception" in error.get("extensions", {}) for error in told(answer)), "qwerty cop { abc }"
    ),
    "a mutation by GET": Check(has_data, method="GET", send={"params": {"query": "mutation {__typename}"}}),
    "a query by a form": Check(has_data, send={"data": {"query": "query { __typename }"}}),
    **{
        f"an IDE at {path}": Check(names_an_ide, method="GET", path=path, send={"headers": {"accept": "text/html"}})
        for path in ("/", "/graphiql", "/playground", "/console", "/graphql")
    },
    "a schema to read": Check(lambda answer: answer.status_code == 200, method="GET", path="/schema.graphql"),
}


@pytest.mark.parametrize("name", CHECKS)
async def test_graphql_cop_finds_nothing(client: httpx.AsyncClient, name: str) -> None:
    """Whether or not the one who looks has a token."""
    check = CHECKS[name]
    given = check.send if check.send is not None else {"json": {"query": check.query, "operationName": "cop"}}
    answer = await client.request(check.method, check.path, **given)
    assert not check.is_finding(answer), answer.text
    assert answer.status_code < 500
    if check.query:
        answer = await client.post("/graphql", json={"query": check.query})
        assert not check.is_finding(answer), answer.text


async def test_the_checks_find_what_an_ordinary_server_allows() -> None:
    """So that they can fail."""
    found = set()
    settings = Settings(no_auth=True)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as live:
        base = f"http://127.0.0.1:{live.port}"
        async with httpx.AsyncClient(base_url=base, timeout=DEADLINE) as client:
            for name, check in CHECKS.items():
                given = check.send if check.send is not None else {"json": {"query": check.query}}
                if check.is_finding(await client.request(check.method, check.path, **given)):
                    found.add(name)
    assert found == {
        "introspection",
        "field suggestions",
        "suggestions of arguments",
        "an IDE at /graphiql",
        "a schema to read",
    }


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
async def test_the_saved_operations_are_answered(path: Path) -> None:
    """Strict limits leave them room."""
    operations = Engine(STRAWBERRY, production().limits(), introspection=False)
    assert operations.parse(path.read_text())


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ nope }", None),
        ("{ runs(fist: 1) { totalCount } }", None),
        ("{ runs(orderBy: {field: LAUNCHD_AT}) { totalCount } }", None),
        ("{ runs(filter: {statuss: {eq: FAILED}}) { totalCount } }", None),
        ("query ($f: RunFilterr) { runs(filter: $f) { totalCount } }", None),
        ("query ($f: RunFilter) { runs(filter: $f) { totalCount } }", {"f": {"statuss": 1}}),
        ("query ($f: RunFilter) { runs(filter: $f) { totalCount } }", {"f": {"status": {"eq": "FAILD"}}}),
        ('{ __type(name: "Run") { name } }', None),
        ("{ ... on Runn { id } }", None),
        ("{ __typename @skp(if: true) }", None),
    ],
)
async def test_no_message_tells_of_the_schema(client: httpx.AsyncClient, query: str, variables: Any) -> None:
    """Only of what was asked for."""
    answer = await client.post("/graphql", json={"query": query, "variables": variables})
    text = answer.text
    assert told(answer)
    for hint in ("Did you mean", "LAUNCHED_AT", "'status'", "FAILED,", "'first'", "totalCunt"):
        assert hint not in text


SECRETS = ("s3cr3t", "/srv/merlin", "10.9.8.7", "Traceback", 'File "', "site-packages")


@pytest.mark.parametrize("error", ["unforeseen", "database"])
@pytest.mark.parametrize("introspection", [True, False])
async def test_what_goes_wrong_inside_is_masked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: str, introspection: bool
) -> None:
    """By an id that is in the log with the rest; where the database is, is told only where the schema is, too."""

    async def fail(_self: object, *_: object) -> Any:
        if error == "database":
            raise BackendUnavailableError("redis://10.9.8.7:6379 can't be reached.")
        if error:
            raise RuntimeError("s3cr3t at /srv/merlin")
        yield ()

    monkeypatch.setattr(MemoryBackend, "name_pages", fail)
    settings = Settings(no_auth=True, introspection=introspection)
    with caplog.at_level(logging.WARNING):
        async with serving(await memory_of(run(1, "/one")), settings=settings) as live, httpx.AsyncClient() as client:
            answer = await client.post(live.http, json={"query": "{ integrity { totalCount } }"})
    (failure,) = answer.json()["errors"]
    leaked = [secret for secret in SECRETS if secret in answer.text]
    if error == "unforeseen":
        assert leaked == []
        assert failure["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
        assert failure["extensions"]["id"] in caplog.text
        assert "s3cr3t at /srv/merlin" in caplog.text
    else:
        assert failure["extensions"]["code"] == "DATABASE_UNAVAILABLE"
        assert leaked == (["10.9.8.7"] if introspection else [])


async def test_a_bug_outside_of_operations_is_masked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 in JSON, of any route."""

    def fail(_self: object, *_: object) -> Any:
        raise RuntimeError("s3cr3t at /srv/merlin")

    monkeypatch.setattr(Engine, "parse", fail)
    async with serving(await memory_of()) as live, httpx.AsyncClient() as client:
        answer = await client.post(live.http, json={"query": "{ __typename }"})
        other = await client.get(f"http://127.0.0.1:{live.port}/none")
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert [secret for secret in SECRETS if secret in answer.text] == []
    assert (other.status_code, other.json()["errors"][0]["extensions"]["code"]) == (404, "NOT_FOUND")


class SlowDatabase(MemoryBackend):
    """One whose name maps take for ever, and whose writes do."""

    async def name_pages(self, *_: Any) -> Any:
        await asyncio.Event().wait()
        yield ()


async def test_a_request_has_a_deadline() -> None:
    """504 over HTTP, with what it was; others are answered meanwhile, and an upload that stalls is given up, too."""
    backend = SlowDatabase()
    await backend.open()
    async with (
        serving(backend, settings=Settings(no_auth=True, deadline=0.3)) as live,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        slow = asyncio.create_task(client.post(live.http, json={"query": "{ integrity { totalCount } }"}))
        await asyncio.sleep(0)
        assert (await client.post(live.http, json={"query": "{ __typename }"})).status_code == 200
        answer = await slow
        assert answer.status_code == 504
        (error,) = answer.json()["errors"]
        assert error["extensions"] == {"code": "DEADLINE_EXCEEDED"}
        assert error["message"].startswith("This took longer than 0.3 s")
        assert await stalled(live) == 408


async def stalled(live: Live) -> int:
    """The status for a body that does not come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    head = "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    writer.write(head.encode() + b'{"query":')
    async with asyncio.timeout(DEADLINE):
        answer = await reader.read()
    writer.close()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["extensions"] == {"code": "REQUEST_TIMEOUT"}
    return int(answer.split()[1])


@pytest.mark.parametrize("compiled", [True, False])
async def test_nobody_is_told_where_the_database_is(tmp_path: Path, compiled: bool) -> None:
    """Nor what it is, beyond its kind; where the schema is told, that is, too."""
    query = {"query": "{ database { kind connection version } }"}
    for profile in (PRODUCTION, "development"):
        environ = {"MERLIN_GRAPHQL_PROFILE": profile, "MERLIN_GRAPHQL_NO_AUTH": "yes"}
        settings = read_settings({**environ, "MERLIN_GRAPHQL_COMPILED": str(compiled)})
        backend = make_backend(f"sqlite:///{tmp_path}/merlin.db", BackendOptions())
        async with serving(backend, settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
            told_ = (await client.post(live.http, json=query)).json()["data"]["database"]
        if profile == PRODUCTION:
            assert told_ == {"kind": "sqlite", "connection": "sqlite", "version": "sqlite"}
        else:
            assert told_["connection"] == f"sqlite:///{tmp_path}/merlin.db"


def test_production_logs_json_with_one_process(tmp_path: Path) -> None:
    """A line of a request has its id, as it has with several."""
    environ = {"MERLIN_GRAPHQL_PROFILE": PRODUCTION}
    with Serving(tmp_path / "home", "--demo", environ=environ) as server:
        query = {"query": "query Here { __typename }"}
        httpx.post(f"{server.url}/graphql", json=query, headers={"x-request-id": "mine"}, timeout=DEADLINE)
        server.wait_until(lambda: "Here" in server.stderr)
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "merlin_graphql.operations"]
    assert (line["operation"], line["request_id"]) == ("Here", "mine")


async def test_an_outage_in_production_tells_no_address(tmp_path: Path) -> None:
    """Of a real database, by a mutation that fails."""
    server = RedisServer.start(binaries()["valkey"], tmp_path)
    backend = make_backend(server.url, BackendOptions())
    await backend.open()
    environ = {"MERLIN_GRAPHQL_NO_AUTH": "yes"}
    async with serving(backend, settings=production(**environ)) as live, httpx.AsyncClient(timeout=30) as client:
        server.kill()
        query = 'mutation { createStudy(input: {name: "new"}) { created } }'
        answer = await client.post(live.http, json={"query": query})
    (error,) = told(answer)
    assert error["extensions"]["code"] in ("DATABASE_UNAVAILABLE", "UNKNOWN_OUTCOME")
    assert "127.0.0.1" not in answer.text
    assert str(server.port) not in answer.text
    await backend.close()
    server.stop()
