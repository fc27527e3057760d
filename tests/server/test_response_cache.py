"""Answers that know their revision: what is kept, what is told of it, and that a change anywhere makes it new."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema import documents
from schema.build import make_schema
from schema.engine import Engine
from schema.operation import Scope
from schema.roles import RequiredRole, Role
from server.database.merlin_database import State
from server.database.models import EntityKind, Entry, Key
from server.database.observations import RunObservation
from server.database.workspaces import Progress, Source, TaskStatus
from server.protocols.response_cache import CacheKey, ResponseCache, cache_key_of, is_known
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

OPERATIONS = Engine(make_schema())
RUNS = {"query": "query Runs($n: Int) { runs(first: $n) { nodes { workspace } } }"}
NO_CACHE = {"cache-control": "no-cache"}
GRAPHQL_JSON = "application/graphql-response+json"
STATE = State("one", 1, "here")


@pytest.fixture(params=["lean", "general"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    settings = Settings(no_auth=True, compiled=request.param == "lean")
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        yield client


def put(live: Live, workspace: str) -> None:
    live.database.read_model.apply([Entry(Key(EntityKind.RUN, uid(1)), run(1, workspace))])


async def executed(live: Live, client: httpx.AsyncClient) -> dict[str, float]:
    """How often what was answered in which way."""
    text = (await client.get(live.http.replace("/graphql", "/metrics"))).text
    lines = [line for line in text.splitlines() if line.startswith("merlin_graphql_executions_total{")]
    return {line.partition('by="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_an_identical_query_is_executed_once_a_revision(live: Live, client: httpx.AsyncClient) -> None:
    """By POST in any spelling of its variables, and by GET; a change anywhere makes it new."""
    first = await client.post(live.http, json=RUNS)
    assert first.json() == {"data": {"runs": {"nodes": [{"workspace": "/one"}]}}}
    before = await executed(live, client)
    spellings: tuple[dict[str, Any], ...] = (
        {"variables": {}},
        {"variables": None},
        {"operationName": "Runs"},
        {"extensions": {}},
    )
    for same in spellings:
        again = await client.post(live.http, json={**RUNS, **same})
        assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    by_get = await client.get(live.http, params=RUNS)
    assert (by_get.content, by_get.headers["etag"]) == (first.content, first.headers["etag"])
    assert (await executed(live, client)) == before | {"kept": 5.0}
    put(live, "/two")
    new = await client.post(live.http, json=RUNS)
    assert new.json() == {"data": {"runs": {"nodes": [{"workspace": "/two"}]}}}
    assert new.headers["etag"] != first.headers["etag"]


async def test_whoever_has_the_answer_is_told_so(live: Live, client: httpx.AsyncClient) -> None:
    """304 without a body and without an execution, until anything changes."""
    first = await client.post(live.http, json=RUNS)
    etag = first.headers["etag"]
    assert etag.startswith('W/"')
    by_get = await client.get(live.http, params=RUNS)
    assert by_get.headers["cache-control"] == "private, no-cache"
    assert by_get.headers["vary"] == "accept, authorization, cookie, x-cost"
    for tags in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        for answer in (
            await client.post(live.http, json=RUNS, headers={"if-none-match": tags}),
            await client.get(live.http, params=RUNS, headers={"if-none-match": tags}),
        ):
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    put(live, "/two")
    assert (await client.post(live.http, json=RUNS, headers={"if-none-match": etag})).status_code == 200


async def test_an_observation_makes_new_only_what_shows_it(live: Live, client: httpx.AsyncClient) -> None:
    """An answer without observed fields is kept, and its ETag is known; one that shows progress gets another one."""
    database = live.database
    await until(lambda: database.read_model.digest.value is not None)
    shows = {"query": "{ runs { nodes { progress { done } stepRuns { name } } } }"}
    etags = {}
    for done in (0, 1):
        progress = Progress({TaskStatus.SUCCEEDED: done}, 9, Source.CELERY_EVENTS, datetime(2026, 1, 1, tzinfo=UTC))
        database.observations.set_runs({uid(1): RunObservation(progress)})
        first = await client.post(live.http, json=shows)
        assert first.json()["data"]["runs"]["nodes"] == [{"progress": {"done": done}, "stepRuns": []}]
        assert (await client.post(live.http, json=shows)).headers["etag"] == first.headers["etag"]
        etags[done] = first.headers["etag"], (await client.post(live.http, json=RUNS)).headers["etag"]
    assert etags[0][0] != etags[1][0]
    assert etags[0][1] == etags[1][1]
    assert (await executed(live, client))["kept"] == 3.0


REFUSED = {
    "{": 400,
    "{ nope }": 400,
    "query ($n: Int!) { runs(first: $n) { totalCount } }": 400,
    "query A { __typename } query B { __typename }": 400,
    "{ runs(first: 0) { totalCount } }": 200,
    "{ " + " ".join(f"a{number}: __typename" for number in range(60)) + " }": 400,
}
"""And their status, where the client says that it reads such."""


async def test_any_answer_is_known_only_where_there_is_one(live: Live, client: httpx.AsyncClient) -> None:
    """`If-None-Match: *` hides no refusal and no error, executed or kept; a tag that was made up hides none either."""
    for headers in ({"if-none-match": "*"}, {"if-none-match": f'W/"{"0" * 32}"'}):
        for query, status in REFUSED.items():
            for _ in range(2):
                ask = {"query": query}
                for answer in (
                    await client.post(live.http, json=ask, headers={**headers, "accept": GRAPHQL_JSON}),
                    await client.get(live.http, params=ask, headers={**headers, "accept": GRAPHQL_JSON}),
                ):
                    assert answer.status_code == status
                    assert answer.json()["errors"]
    fresh = {"query": "{ runs { totalCount } }"}
    for ask in (fresh, RUNS, RUNS):  # executed, executed, kept
        answer = await client.post(live.http, json=ask, headers={"if-none-match": "*"})
        assert (answer.status_code, answer.content) == (304, b"")
        assert (await client.post(live.http, json=ask)).headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize("compiled", [True, False])
async def test_any_answer_is_known_to_those_who_may_read_it(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, *, compiled: bool
) -> None:
    """403 comes first."""
    monkeypatch.setattr(documents, "required_role_of_all", lambda _: RequiredRole(Role.ADMIN, "Query.runs"))
    settings = Settings(no_auth=True, read_only=True, compiled=compiled)
    async with serving(await memory_of(), settings=settings) as live:
        for headers in ({}, {"if-none-match": "*"}, {"if-none-match": "*"}):
            assert (await client.post(live.http, json=RUNS, headers=headers)).status_code == 403
            assert (await client.get(live.http, params=RUNS, headers=headers)).status_code == 403


async def test_tags_are_found_on_every_line(live: Live, client: httpx.AsyncClient) -> None:
    """And beside such as hold commas; not inside another."""
    etag = (await client.post(live.http, json=RUNS)).headers["etag"]
    for lines, status in {
        ('"a"', etag): 304,
        ('"a, b", W/"c,"', f'"d" , {etag}', '"e"'): 304,
        (f'"a, {etag[3:-1]}"',): 200,
        ('"a"', "*"): 200,
        ('"*"',): 200,
    }.items():
        headers = [("if-none-match", line) for line in lines]
        assert (await client.post(live.http, json=RUNS, headers=headers)).status_code == status
        assert (await client.get(live.http, params=RUNS, headers=headers)).status_code == status
        assert (await client.head(live.http, params=RUNS, headers=headers)).status_code == status
    schema = live.http.replace("/graphql", "/schema.graphql")
    tag = (await client.get(schema)).headers["etag"]
    assert (await client.get(schema, headers=[("if-none-match", '"a,"'), ("if-none-match", tag)])).status_code == 304


async def test_a_client_can_insist(live: Live, client: httpx.AsyncClient) -> None:
    """`Cache-Control: no-cache` is always executed."""
    etag = (await client.post(live.http, json=RUNS)).headers["etag"]
    before = await executed(live, client)
    for value in ("no-cache", "NO-CACHE", 'x="a, b", No-Cache'):
        insisting = {"cache-control": value}
        answer = await client.post(live.http, json=RUNS, headers=insisting | {"if-none-match": etag})
        assert (answer.status_code, answer.headers["etag"]) == (200, etag)
    more = {"compiled": before["compiled"] + 3} if before else {}  # without the compiler nothing is counted
    assert await executed(live, client) == before | more


@pytest.mark.parametrize(
    "query",
    [
        "{ physicalWorkers { nodes { heartbeatAge } } }",
        "{ physicalWorkers { nodes { ...f } } } fragment f on PhysicalWorker { heartbeatAge }",
        "{ runs(first: 0) { totalCount } }",
        '{ study(id: "a", name: "b") { id } }',
    ],
)
async def test_what_depends_on_the_clock_or_fails_is_not_kept(
    live: Live, client: httpx.AsyncClient, query: str
) -> None:
    """Nor has it an ETag."""
    for _ in range(2):
        assert "etag" not in (await client.post(live.http, json={"query": query})).headers
    assert (await executed(live, client)).get("kept", 0) == 0


async def test_roles_do_not_share_answers(client: httpx.AsyncClient, tmp_path: Any) -> None:
    """What one may see is not told to another."""
    settings = Settings(token="t" * 20)
    async with serving(await memory_of(), settings=settings) as live:
        ask = {"query": "{ viewer { roles } }"}
        headers = {"authorization": f"Bearer {settings.token}"}
        answer = await client.post(live.http, json=ask, headers=headers)
        assert answer.json()["data"]["viewer"]["roles"] == ["READ", "WRITE", "ADMIN"]
        for stranger in ({}, {"authorization": "Bearer nobody"}):
            refused = await client.post(
                live.http, json=ask, headers={**stranger, "if-none-match": answer.headers["etag"]}
            )
            assert refused.status_code == 401
    operation = OPERATIONS.parse("{ viewer { roles } }")
    assert len({cache_key_of(operation, None, role) for role in (None, *Role)}) == 4


async def test_nothing_is_kept_where_that_is_the_setting(client: httpx.AsyncClient) -> None:
    """ETags go on to be told."""
    async with serving(await memory_of(), settings=Settings(no_auth=True, result_cache=0)) as live:
        etags = [(await client.post(live.http, json=RUNS)).headers["etag"] for _ in range(2)]
        assert etags[0] == etags[1]
        assert (await executed(live, client)).get("kept", 0) == 0


async def test_servers_of_other_content_do_not_take_each_others_tags(client: httpx.AsyncClient) -> None:
    """Even at the same revision."""
    async with (
        serving(await memory_of(run(1, "/one")), settings=Settings(no_auth=True)) as one,
        serving(await memory_of(run(1, "/two")), settings=Settings(no_auth=True)) as other,
    ):
        assert one.database.revision == other.database.revision
        etag = (await client.post(one.http, json=RUNS)).headers["etag"]
        answer = await client.post(other.http, json=RUNS, headers={"if-none-match": etag})
        assert answer.json()["data"]["runs"]["nodes"] == [{"workspace": "/two"}]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3000)), max_size=60), st.integers(0, 20_000))
def test_no_more_bytes_are_kept_than_there_is_room(asked: list[tuple[int, int]], room: int) -> None:
    """And whatever is found is what was put."""
    results = ResponseCache(room)
    truth: dict[CacheKey, bytes] = {}
    for number, size in asked:
        question, answer = CacheKey(str(number), Scope.CONTENT), b"x" * size
        kept = results.find(question, STATE)
        if kept is not None:
            assert kept.body == truth[question]
            continue
        assert results.put(question, STATE, answer, 7).body == answer
        truth[question] = answer
        assert results.size <= room
    assert results.find(CacheKey("0", Scope.CONTENT), STATE._replace(content="other")) is None
    assert results.size == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_other_variables_are_another_question(one: Any, other: Any) -> None:
    """And the same, in any order of their keys, are the same."""
    operation = OPERATIONS.parse(RUNS["query"])
    first, second = (cache_key_of(operation, {"n": value}, Role.READ) for value in (one, other))
    if first is not None and second is not None:
        assert (first == second) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), ("", False), ('"a"', True), ('W/"a"', True), ('"b", W/"a"', True), ('"b"', False), ("*", True)],
)
def test_tags_are_compared_weakly(header: str | None, expected: bool) -> None:
    """RFC 9110, section 8.8.3.2."""
    assert is_known('W/"a"', header) is expected
