"""`--http-statuses`: the statuses that clients know today, or those of GraphQL over HTTP, September 2026."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from graphql import GraphQLError

from schema import errors
from schema.operation import OperationError
from server.protocols.statuses import HttpStatuses
from server.responses import GRAPHQL_JSON, JSON
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")
COMPATIBLE, SEPTEMBER = HttpStatuses


@pytest.fixture(params=[True, False], ids=["compiled", "general"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    settings = Settings(no_auth=True, http_statuses=SEPTEMBER, compiled=request.param)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.mark.parametrize(
    ("content", "status", "in_json"),
    [
        ('{"query": "{ __typename }"}', 200, 200),
        ("{", 400, 400),
        ('{"query": "{"}', 400, 200),
        ('{"qeury": "{ __typename }"}', 422, 422),
        ('{"query": 7}', 422, 422),
        ('{"query": "{ __typename }", "variables": [7]}', 422, 422),
        ('{"query": "{ nope }"}', 422, 200),
        ('{"query": "query A { __typename } query B { __typename }"}', 422, 200),
        ('{"query": "query ($n: Int!) { runs(first: $n) { totalCount } }"}', 422, 200),
        ('{"documentId": "0000"}', 422, 200),
        ('{"query": "{ runs(first: 501) { totalCount } }"}', 294, 200),
        ('{"query": "mutation { deleteStudy(input: {id: 1, name: 2}) { deletedId } }"}', 422, 200),
        ('[{"query": "{ nope }"}]', 200, 200),
        ("[]", 400, 400),
    ],
)
async def test_the_statuses_of_september_2026(live: Live, content: str, status: int, in_json: int) -> None:
    """Twice, since the second may be answered from what was kept; in JSON, whose clients read no other, 200."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        for accept, expected in ((GRAPHQL_JSON, status), (JSON, in_json)):
            for _ in range(2):
                headers = {"accept": accept, "content-type": JSON}
                answer = await client.post(live.http, content=content, headers=headers)
                assert (answer.status_code, answer.headers["content-type"]) == (expected, accept)


async def test_partial_data_is_no_failure_to_a_client(live: Live) -> None:
    """A status of 2xx, by GET too; no cache keeps it."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        params = {"query": "{ runs(first: 501) { totalCount } __typename }"}
        answer = await client.get(live.http, params=params, headers={"accept": GRAPHQL_JSON})
    assert (answer.status_code, answer.is_success) == (294, True)
    assert set(answer.json()) == {"data", "errors"}
    assert "etag" not in answer.headers


def test_a_database_that_is_away_is_the_servers_fault() -> None:
    """503, where nothing was executed."""
    for code, status in ((errors.UNAVAILABLE, 503), (errors.SHUTTING_DOWN, 503), (errors.FORBIDDEN, 403)):
        error = OperationError([GraphQLError("no")], code)
        assert SEPTEMBER.of_error(error, GRAPHQL_JSON) == status
        assert COMPATIBLE.of_error(error, GRAPHQL_JSON) == (403 if status == 403 else 400)
        assert COMPATIBLE.of_error(error, JSON) == SEPTEMBER.of_error(error, JSON) == (403 if status == 403 else 200)


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (CLIENTS.parent / "node_modules").exists(), reason="npm has not installed tests/package.json")
async def test_the_reference_audit_misses_only_400(live: Live) -> None:
    """It tests an older draft, which has 400 for all that is 422 now."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, CLIENTS / "audit.js", live.http, stdout=asyncio.subprocess.PIPE
    )
    told = json.loads((await process.communicate())[0])
    assert told["all"] == 61
    assert told["failed"]
    assert all("400" in audit["name"] for audit in told["failed"]), told["failed"]
