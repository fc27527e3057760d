"""Several operations in one request, as a JSON array: each has its own response, errors and cost."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from schema.engine import Engine
from server.auth.rate_limit import RateLimit
from server.contract.manifest import hash_of
from server.observability.metrics import Metrics
from server.protocols import batch
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.pages import block
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parents[1]
QUERIES = TESTS.parent / "queries"
NODE = shutil.which("node")
JSON, GRAPHQL_JSON = "application/json", "application/graphql-response+json"
RUNS = {"query": "query Runs { runs { nodes { id workspace } } }"}
STUDIES = {"query": "query Studies { studies { totalCount } }"}
FOUND = {"data": {"runs": {"nodes": [{"id": uid(1), "workspace": "/one"}]}}}


def creating(name: str, **extensions: object) -> dict[str, Any]:
    query = "mutation ($name: String!) { createStudy(input: {name: $name}) { created } }"
    return {"query": query, "variables": {"name": name}, "extensions": extensions}


def codes(answer: httpx.Response) -> list[str | None]:
    """The code of each response's first error."""
    return [it["errors"][0]["extensions"]["code"] if "errors" in it else None for it in answer.json()]


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(run(1, "/one")), settings=Settings(no_auth=True)) as server:
        yield server


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each request to the endpoint."""
    counted: list[str] = []
    monkeypatch.setattr(Metrics, "count_fast_path", lambda _self, outcome: counted.append(outcome))
    return counted


APOLLO = """
import { gql } from "@apollo/client";
const texts = ["query Runs { runs { totalCount } }", "query Studies { studies { totalCount } }"];
const [runs, studies] = await Promise.all(texts.map((text) => client.query({ query: gql(text) })));
"""


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (TESTS / "node_modules").exists(), reason="npm has not installed tests/package.json")
@pytest.mark.parametrize(("has", "goes_on"), [("BatchHttpLink", APOLLO), ("batchRequests", "")])
async def test_the_recipes_of_javascript_send_one_request(
    live: Live, requests: list[str], has: str, goes_on: str
) -> None:
    """Apollo Client and graphql-request, as docs/clients.md has them."""
    assert NODE is not None
    recipe = block("docs/clients.md", has, "js").replace("http://localhost:8000/graphql", live.http)
    told = "console.log(runs.data.runs.totalCount, studies.data.studies.totalCount); process.exit(0);"
    program = f"const token = 'any';\n{recipe}\n{goes_on}\n{told}"
    process = await asyncio.create_subprocess_exec(
        *(NODE, "--input-type=module", "--eval", program), cwd=TESTS, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0].split() == [b"1", b"0"]
    assert len(requests) == 1


async def test_the_recipe_of_gql_sends_one_request(live: Live, requests: list[str]) -> None:
    """As docs/clients.md has it."""
    recipe = block("docs/clients.md", "execute_batch", "python").replace("http://localhost:8000/graphql", live.http)
    names: dict[str, Any] = {"token": "any"}
    await asyncio.to_thread(exec, compile(recipe, "clients.md", "exec"), names)
    assert (names["runs"], names["studies"]) == ({"runs": {"totalCount": 1}}, {"studies": {"totalCount": 0}})
    assert len(requests) == 1


@pytest.mark.parametrize("accept", [JSON, GRAPHQL_JSON])
async def test_each_operation_has_its_own_response(client: httpx.AsyncClient, accept: str) -> None:
    """In order, and of status 200 as a whole: one that is refused, malformed or faulty leaves the others alone."""
    sent: list[object] = [
        RUNS,
        {"query": "{ nope }"},
        "text",
        {},
        {"query": "{"},
        {"query": "subscription { changes { kind } }"},
    ]
    sent += [{"query": "{ runs(first: 501) { totalCount } }"}, [RUNS], {"documentId": "0" * 64}, RUNS]
    answer = await client.post("/graphql", json=sent, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, accept)
    assert "x-position" in answer.headers
    assert codes(answer) == [
        *(None, "GRAPHQL_VALIDATION_FAILED", "BAD_REQUEST", "BAD_REQUEST", "GRAPHQL_PARSE_FAILED", "NOT_ACCEPTABLE"),
        *("BAD_USER_INPUT", "BAD_REQUEST", "PERSISTED_QUERY_NOT_FOUND", None),
    ]
    assert answer.json()[0] == answer.json()[-1] == FOUND


async def test_a_fault_in_one_is_masked_there(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are answered."""
    query = Engine.query

    async def fail(self: Engine, operation: Any, *given: Any) -> Any:
        if operation.name == "Studies":
            raise RuntimeError("s3cr3t")
        return await query(self, operation, *given)

    monkeypatch.setattr(Engine, "query", fail)
    answer = await client.post("/graphql", json=[STUDIES, RUNS])
    assert codes(answer) == ["INTERNAL_SERVER_ERROR", None]
    assert "s3cr3t" not in answer.text


async def test_operations_are_executed_one_after_the_other(live: Live, client: httpx.AsyncClient) -> None:
    """A query after a mutation finds what it has made, and one before it does not."""
    answer = await client.post(
        "/graphql", json=[STUDIES, creating("a"), STUDIES, creating("b"), creating("a"), STUDIES]
    )
    before, a, between, b, again, after = (it["data"] for it in answer.json())
    counts = [it["studies"]["totalCount"] for it in (before, between, after)]
    assert counts == [0, 1, 2]
    assert [it["createStudy"]["created"] for it in (a, b, again)] == [True, True, False]
    assert answer.headers["x-position"] == str(live.database.position)


@pytest.mark.parametrize(
    ("sent", "headers", "status", "message"),
    [
        ([], {}, 400, "Send 1 to 10 operations in an array, not 0."),
        ([RUNS] * 11, {}, 400, "Send 1 to 10 operations in an array, not 11."),
        ([creating("a")], {"x-idempotency-key": "k"}, 400, "extensions.idempotencyKey"),
        ([RUNS], {"accept": "text/event-stream"}, 406, "Accept one of application/json"),
    ],
)
async def test_a_batch_is_refused_as_a_whole(
    live: Live, client: httpx.AsyncClient, sent: list[Any], headers: dict[str, str], status: int, message: str
) -> None:
    """With nothing executed."""
    answer = await client.post("/graphql", json=sent, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["errors"][0]["message"]
    assert len(live.database.studies) == 0


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So no point comes back."""
    init = RateLimit.__init__
    monkeypatch.setattr(RateLimit, "__init__", lambda self, per_minute: init(self, per_minute, lambda: 100.0))


@pytest.mark.usefixtures("no_time_passes")
async def test_a_batch_is_one_request_and_costs_what_its_operations_cost() -> None:
    """By the rate limit and by the budget; X-Cost tells it of each."""
    settings = Settings(no_auth=True, rate_limit=2, max_cost=6_000, budget=6_000)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as live, httpx.AsyncClient() as client:
        told = await client.post(live.http, json=[RUNS, STUDIES, RUNS], headers={"x-cost": "1"})
        costs = [it["extensions"]["cost"] for it in told.json()]
        remaining = [it["remaining"] for it in costs]
        assert 6_000 > remaining[0] > remaining[1] > remaining[2]
        assert (await client.post(live.http, json=[RUNS] * 10)).status_code == 200
        assert (await client.post(live.http, json=[RUNS])).status_code == 429


@pytest.mark.usefixtures("no_time_passes")
async def test_an_operation_beyond_the_budget_is_refused_alone() -> None:
    """What comes before it is answered; the client reads when to try again."""
    settings = Settings(no_auth=True, max_cost=20, budget=20)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as live, httpx.AsyncClient() as client:
        answer = await client.post(live.http, json=[RUNS] * 10, headers={"cache-control": "no-cache"})
    assert answer.status_code == 200
    assert codes(answer)[0] is None
    assert codes(answer)[-1] == "BUDGET_EXCEEDED"
    assert answer.json()[-1]["errors"][0]["extensions"]["retryAfter"] > 0


async def test_roles_are_each_operations_own() -> None:
    """A reader's mutation is refused, and its query answered."""
    settings = Settings(no_auth=True, read_only=True)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as live, httpx.AsyncClient() as client:
        answer = await client.post(live.http, json=[creating("a"), RUNS])
        assert (answer.status_code, codes(answer)) == (200, ["FORBIDDEN", None])


async def test_documents_may_be_named_by_their_hash() -> None:
    """Those that are trusted, where nothing else is executed."""
    settings = Settings(no_auth=True, trusted_documents=QUERIES, only_trusted=True)
    trusted = {"query": (QUERIES / "RecentRuns.graphql").read_text()}
    async with serving(await memory_of(run(1, "/one")), settings=settings) as live, httpx.AsyncClient() as client:
        hash_ = hash_of(trusted["query"])
        hashed = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_}}}
        answer = await client.post(live.http, json=[trusted, RUNS, {"documentId": f"sha256:{hash_}"}, hashed])
    assert codes(answer) == [None, "UNTRUSTED_DOCUMENT", None, None]


async def test_a_key_makes_one_mutation_safe_to_repeat(live: Live, client: httpx.AsyncClient) -> None:
    """Within a batch, and in the next."""
    sent = [creating("a", idempotencyKey="k"), creating("a", idempotencyKey="k"), creating("b", idempotencyKey="l")]
    for _ in range(2):
        answer = await client.post("/graphql", json=sent)
        assert [it["data"]["createStudy"]["created"] for it in answer.json()] == [True, True, True]
    assert len(live.database.studies) == 2


async def test_a_batch_reads_nothing_older_than_it_names(client: httpx.AsyncClient) -> None:
    """By a header for all, or by an extension for one."""
    made = await client.post("/graphql", json=creating("a"))
    position = made.headers["x-position"]
    answer = await client.post("/graphql", json=[STUDIES, RUNS], headers={"x-read-after": position})
    assert answer.json()[0]["data"]["studies"]["totalCount"] == 1
    answer = await client.post("/graphql", json=[{**STUDIES, "extensions": {"readAfter": "no"}}, RUNS])
    assert codes(answer) == ["BAD_REQUEST", None]


async def test_no_operation_is_begun_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole request; those that were in time are answered."""
    now = iter([0.0, 0.5, 31.0, 32.0])
    monkeypatch.setattr(batch, "monotonic", lambda: next(now))
    async with (
        serving(await memory_of(run(1, "/one")), settings=Settings(no_auth=True, deadline=30.0)) as live,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        answer = await client.post(live.http, json=[RUNS, creating("a"), RUNS])
        assert codes(answer) == [None, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]
        assert len(live.database.studies) == 0
