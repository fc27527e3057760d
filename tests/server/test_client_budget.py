"""What a client may use: points for the cost of its operations, connections, subscriptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from server.auth.client_budget import ClientBudget
from server.auth.quota import Quota
from server.auth.rate_limit import RateLimit
from server.database.models import EntityKind, Entry, Key
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

LIMIT = 600
"""Points; ten come back in a second."""
QUERY = "{ runs { nodes { id } } }"
BUDGET = "{ viewer { budget { limit remaining resetAt } } }"
MUTATION = 'mutation { createStudy(input: {name: "new"}) { created } }'
LIVE = "subscription { live(throttle: 0) { runs { totalCount } } }"
CHANGES = "subscription { changes { kind entityId } }"
STREAM = {"accept": "text/event-stream"}
NO_CACHE = {"cache-control": "no-cache"}
PROTOCOL = Subprotocol("graphql-transport-ws")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 20_000), st.booleans()), max_size=60),
)
def test_no_more_points_are_taken_than_there_are(limit: int, asked: list[tuple[float, int, bool]]) -> None:
    """However they are asked for: what fits into the bucket, and what time has brought; given back are none taken."""
    clock = Clock()
    budget = ClientBudget(RateLimit(limit, clock), "a")
    taken = 0
    for pause, points, is_given_back in asked:
        clock.now += pause
        before = budget.remaining
        if budget.take(points) == 0.0:
            assert points <= before + 1
            taken += points
            if is_given_back:
                budget.give_back(points)
                taken -= points
        assert taken <= limit + (clock.now - 100.0) * limit / 60 + 1e-6
        assert 0 <= budget.remaining <= limit == budget.limit


@given(st.integers(10, 10_000), st.data())
def test_points_are_there_when_it_was_said(limit: int, data: st.DataObject) -> None:
    """A refusal takes nothing, and tells the seconds."""
    clock = Clock()
    budget = ClientBudget(RateLimit(limit, clock), "a")
    first = data.draw(st.integers(1, limit))
    second = data.draw(st.integers(limit - first + 1, limit))
    assert budget.take(first) == 0.0
    seconds = budget.take(second)
    assert seconds > 0
    assert budget.take(second) == seconds
    clock.now += seconds + 1e-6
    assert budget.take(second) == 0.0


@given(st.lists(st.sampled_from("aabc"), max_size=50), st.integers(1, 5))
def test_a_quota_counts_each_client_for_itself(entering: list[str], maximum: int) -> None:
    """And forgets those that have left."""
    quota = Quota(maximum)
    inside = [client for client in entering if quota.enter(client)]
    for client in "abc":
        assert inside.count(client) == min(maximum, entering.count(client))
    for client in inside:
        quota.leave(client)
    assert quota._counts == {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Points come back when a test lets time pass."""
    clock, init = Clock(), RateLimit.__init__

    def with_clock(self: RateLimit, per_minute: int) -> None:
        init(self, per_minute, clock)

    monkeypatch.setattr(RateLimit, "__init__", with_clock)
    return clock


@asynccontextmanager
async def asking(**more: Any) -> AsyncIterator[tuple[Live, httpx.AsyncClient]]:
    settings = Settings(**{"no_auth": True, "budget": LIMIT, "max_cost": LIMIT, **more})
    async with (
        serving(await memory_of(run(1)), settings=settings) as live,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        yield live, client


async def remaining(live: Live, client: httpx.AsyncClient) -> int:
    """What is there after this was asked, which takes its cost, too."""
    asked = {"query": BUDGET, "extensions": {"cost": True}}
    answer = (await client.post(live.http, json=asked)).json()
    budget, cost = answer["data"]["viewer"]["budget"], answer["extensions"]["cost"]
    assert budget["limit"] == LIMIT
    assert (budget["remaining"], budget["resetAt"][:16]) == (cost["remaining"], cost["resetAt"][:16])
    return int(budget["remaining"])


async def cost_of(live: Live, client: httpx.AsyncClient, query: str) -> int:
    answer = await client.post(live.http, json={"query": query}, headers={"x-cost": "1"})
    told = answer.json()["extensions"]["cost"]
    assert told["limit"] == LIMIT
    assert "etag" not in answer.headers
    return int(told["estimated"])


def put(live: Live, number: int) -> None:
    live.database.read_model.apply([Entry(Key(EntityKind.RUN, uid(number)), run(number))])


class Socket:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def subscribe(self, id_: str, query: str, **extensions: Any) -> None:
        payload = {"query": query, "extensions": extensions}
        await self.connection.send(json.dumps({"type": "subscribe", "id": id_, "payload": payload}))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message


@asynccontextmanager
async def socket_to(live: Live) -> AsyncIterator[Socket]:
    async with connect(live.ws, subprotocols=[PROTOCOL]) as connection:
        await connection.send('{"type": "connection_init"}')
        socket = Socket(connection)
        assert await socket.hear() == {"type": "connection_ack"}
        yield socket


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("compiled", [True, False])
async def test_an_operation_takes_its_cost_and_a_cached_response_one_point(compiled: bool) -> None:
    """By the fast path and the slow one; a 304 takes one point, too."""
    async with asking(compiled=compiled) as (live, client):
        cost, own = await cost_of(live, client, QUERY), await cost_of(live, client, BUDGET)
        mutation = await cost_of(live, client, MUTATION)
        assert cost > 1
        start = await remaining(live, client)
        answer = await client.post(live.http, json={"query": QUERY})
        after = await remaining(live, client)
        assert after == start - own - cost
        etag = {"if-none-match": answer.headers["etag"]}
        assert (await client.post(live.http, json={"query": QUERY})).status_code == 200
        assert (await client.post(live.http, json={"query": QUERY}, headers=etag)).status_code == 304
        await client.post(live.http, json={"query": QUERY}, headers=NO_CACHE)
        await client.post(live.http, json={"query": MUTATION})
        assert await remaining(live, client) == after - own - 1 - 1 - cost - mutation


async def exhaust(live: Live, client: httpx.AsyncClient) -> httpx.Response:
    """Asks until the points do not suffice; the last answer is the refusal."""
    for _ in range(LIMIT + 1):
        answer = await client.post(live.http, json={"query": QUERY}, headers=NO_CACHE)
        if answer.status_code != 200:
            return answer
    raise AssertionError("it is never refused")


@pytest.mark.parametrize("compiled", [True, False])
async def test_what_costs_more_than_is_left_is_refused_until_the_points_are_back(compiled: bool, clock: Clock) -> None:
    """429 with Retry-After; the message says what it costs, what is left, and when it will pass."""
    async with asking(compiled=compiled) as (live, client):
        cost = await cost_of(live, client, QUERY)
        refused = await exhaust(live, client)
        assert refused.status_code == 429
        (error,) = refused.json()["errors"]
        told, seconds = error["extensions"], int(refused.headers["retry-after"])
        assert (told["code"], told["cost"], told["retryAfter"]) == ("BUDGET_EXCEEDED", cost, seconds)
        assert told["remaining"] < cost
        assert error["message"] == (
            f"This operation costs {cost} points, and {told['remaining']} of this client's {LIMIT} remain: "
            f"try again in {seconds} s."
        )
        clock.now += seconds
        assert (await client.post(live.http, json={"query": QUERY}, headers=NO_CACHE)).status_code == 200


@pytest.mark.usefixtures("clock")
async def test_a_mutation_that_is_refused_changes_nothing() -> None:
    """Over a websocket it is refused by `error`, and in an event stream by its last event."""
    many = " ".join(f'm{number}: createStudy(input: {{name: "n{number}"}}) {{ created }}' for number in range(30))
    asked = {"query": f"mutation {{ {many} }}"}
    async with asking() as (live, client), socket_to(live) as socket:
        await exhaust(live, client)
        assert (await client.post(live.http, json=asked)).status_code == 429
        await socket.subscribe("a", asked["query"])
        message = await socket.hear()
        assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "BUDGET_EXCEEDED")
        streamed = await client.post(live.http, json=asked, headers=STREAM)
        assert streamed.status_code == 200
        assert '"code":"BUDGET_EXCEEDED"' in streamed.text
        assert streamed.text.endswith("event: complete\ndata: \n\n")
        assert len(live.database.studies) == 0


@pytest.mark.parametrize("wanted", ["yes", "0", ""])
async def test_another_value_of_the_header_is_refused(wanted: str) -> None:
    """400, and the message says what to send; so does `extensions.cost`."""
    async with asking() as (live, client):
        answer = await client.post(live.http, json={"query": QUERY}, headers={"x-cost": wanted})
        message = answer.json()["errors"][0]["message"]
        assert (answer.status_code, message) == (400, "X-Cost: send 1, or leave the header out.")
        answer = await client.post(live.http, json={"query": QUERY, "extensions": {"cost": wanted}})
        assert answer.status_code == 400


async def test_the_cost_comes_beside_other_extensions() -> None:
    """Those of a mutation stay."""
    async with asking() as (live, client):
        answer = await client.post(live.http, json={"query": MUTATION}, headers={"x-cost": "1"})
        assert list(answer.json()["extensions"]) == ["position", "cost"]
        assert set(answer.json()["extensions"]["cost"]) == {"estimated", "limit", "remaining", "resetAt"}


async def test_subscriptions_of_a_client_are_bounded_over_all_its_connections() -> None:
    """One more is refused by LIMIT_EXCEEDED; when one has ended, another may begin."""
    async with asking(max_client_subscriptions=2) as (live, client), AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(socket_to(live)) for _ in range(2)]
        await one.subscribe("a", CHANGES)
        await other.subscribe("b", CHANGES)
        await until(lambda: live.database.changes.followers == 2)
        await other.subscribe("c", CHANGES)
        message = await other.hear()
        told = {"code": "LIMIT_EXCEEDED", "limit": "subscriptions", "value": 3, "maximum": 2}
        assert (message["type"], message["payload"][0]["extensions"]) == ("error", told)
        streamed = await client.post(live.http, json={"query": CHANGES}, headers=STREAM)
        assert '"code":"LIMIT_EXCEEDED"' in streamed.text
        await other.subscribe("query", "{ __typename }")
        assert [(await other.hear())["type"] for _ in range(2)] == ["next", "complete"]
        await other.connection.send('{"type": "complete", "id": "b"}')
        await until(lambda: live.database.changes.followers == 1)
        await other.subscribe("d", CHANGES)
        await until(lambda: live.database.changes.followers == 2)


async def until_free(live: Live, client: httpx.AsyncClient) -> None:
    """An event stream may begin, and ends with its query."""
    async with asyncio.timeout(DEADLINE):
        while (await client.post(live.http, json={"query": "{ __typename }"}, headers=STREAM)).status_code != 200:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["close", "abort", "break the protocol"])
async def test_connections_of_a_client_are_bounded_and_free_again_however_they_end(way: str) -> None:
    """A websocket too many is closed by 1013, after which clients connect again; an event stream gets 429."""
    async with asking(max_client_connections=1) as (live, client):
        for _ in range(3):
            async with socket_to(live) as socket, connect(live.ws, subprotocols=[PROTOCOL]) as one_more:
                await socket.subscribe("a", CHANGES)
                await until(lambda: live.database.changes.followers == 1)
                await one_more.send('{"type": "connection_init"}')
                async with asyncio.timeout(DEADLINE):
                    await one_more.wait_closed()
                assert one_more.close_code == 1013
                refused = await client.post(live.http, json={"query": CHANGES}, headers=STREAM)
                assert refused.status_code == 429
                assert refused.json()["errors"][0]["extensions"] == {"code": "RATE_LIMITED"}
                if way == "abort":
                    socket.connection.transport.abort()
                elif way == "break the protocol":
                    await socket.connection.send("{")
                    async with asyncio.timeout(DEADLINE):
                        await socket.connection.wait_closed()
            await until(lambda: live.database.changes.followers == 0)
            await until_free(live, client)


async def test_a_stream_whose_client_is_gone_is_free_again() -> None:
    """Also in the middle of its subscription."""
    async with asking(max_client_connections=1) as (live, client):
        for _ in range(2):
            async with client.stream("POST", live.http, json={"query": CHANGES}, headers=STREAM) as response:
                assert response.status_code == 200
                await until(lambda: live.database.changes.followers == 1)
            await until(lambda: live.database.changes.followers == 0)
            await until_free(live, client)


@pytest.mark.usefixtures("clock")
async def test_a_repeated_mutation_with_a_key_takes_one_point() -> None:
    """It is looked up, and not executed again."""
    async with asking() as (live, client):
        own, key = await cost_of(live, client, BUDGET), {"x-idempotency-key": "k"}
        cost = (await client.post(live.http, json={"query": MUTATION}, headers=key | {"x-cost": "1"})).json()
        start = await remaining(live, client)
        assert start == cost["extensions"]["cost"]["remaining"] - own
        again = await client.post(live.http, json={"query": MUTATION}, headers=key)
        assert again.json()["data"] == cost["data"]
        assert await remaining(live, client) == start - 1 - own


@pytest.mark.usefixtures("clock")
async def test_the_metrics_count_open_connections_and_refusals() -> None:
    """By protocol, and by code."""
    async with asking() as (live, client), socket_to(live):
        await exhaust(live, client)
        text = (await client.get(live.http.replace("/graphql", "/metrics"))).text
        assert 'merlin_graphql_connections{protocol="websocket"} 1.0' in text
        assert 'merlin_graphql_errors_total{code="BUDGET_EXCEEDED"} 1.0' in text
