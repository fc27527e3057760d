"""What a hostile client may send: refused soon, while others are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from server.settings import Settings
from tests.schema.test_limits import bomb
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio

PAGES = "runs(first: 500) { nodes { study { "
HOSTILE = {
    "a fragment bomb": bomb(60),
    "a bomb below the root": "{ database { ...f0 } } "
    + " ".join(f"fragment f{n} on Database {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60))
    + " fragment f60 on Database { runs }",
    "aliases": "{ database { " + " ".join(f"a{n}: runs" for n in range(3_000)) + " } }",
    "aliases of all runs": "{ " + " ".join(f"a{n}: runs {{ totalCount }}" for n in range(45)) * 5 + " }",
    "directives": "{ __typename " + "@skip(if: false) " * 1_000 + "}",
    "nesting": "{ run(id: 1) { " + "parent { " * 100 + "id" + " }" * 100 + " } }",
    "deep nesting": "{ a " * 5_000 + "}" * 5_000,
    "a long chain of fragments": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} }}" for n in range(1_000))
    + " fragment f1000 on Query { __typename }",
    "fragments in a circle": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "many tokens": "{ " + "__typename " * 20_000 + "}",
    "a long comment": "{ __typename } #" + "x" * 200_000,
    "many errors": "{ " + " ".join(f"nope{n}" for n in range(45)) + " }",
    "deep values": "{ runs(filter: " + "{not: " * 1_000 + "{}" + "}" * 1_000 + ") { totalCount } }",
}


@pytest.fixture(params=[True, False], ids=["compiled", "general"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    """Each way of answering passes the same tests."""
    settings = Settings(no_auth=True, compiled=request.param)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.mark.parametrize("name", sorted(HOSTILE))
async def test_a_hostile_document_is_refused(live: Live, name: str) -> None:
    """With at most five errors, each with a code; the server goes on."""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        refused = await client.post(live.http, json={"query": HOSTILE[name]})
        errors = refused.json()["errors"]
        assert 1 <= len(errors) <= 5
        assert "data" not in refused.json()
        for error in errors:
            assert error["extensions"]["code"] in (
                "BAD_USER_INPUT",
                "GRAPHQL_PARSE_FAILED",
                "GRAPHQL_VALIDATION_FAILED",
                "LIMIT_EXCEEDED",
            )
        assert (await client.post(live.http, json={"query": "{ __typename }"})).json() == {
            "data": {"__typename": "Query"}
        }


async def test_a_refusal_names_the_limit_its_value_and_the_maximum(live: Live) -> None:
    """To people in the message, to programs in `extensions`."""
    async with httpx.AsyncClient() as client:
        (error,) = (await client.post(live.http, json={"query": HOSTILE["nesting"]})).json()["errors"]
    assert error["message"] == "The operation's depth: 102, but the maximum is 20."
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "limit": "depth", "value": 102, "maximum": 20}


async def test_a_page_by_a_variable_counts_as_it_is_asked_for() -> None:
    """The same document is answered with small pages, and refused with large ones, where there are so many runs."""
    query = "query ($n: Int!) { " + PAGES.replace("500", "$n") * 3 + "id" + " } } }" * 3 + " }"
    records = [run(number, f"/{number}", study_id=uid(1000)) for number in range(500)]
    async with (
        serving(await memory_of(study(1000), *records), settings=Settings(no_auth=True)) as live,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        small = await client.post(live.http, json={"query": query, "variables": {"n": 5}})
        assert "errors" not in small.json()
        large = await client.post(live.http, json={"query": query, "variables": {"n": 500}})
        assert large.json()["errors"][0]["extensions"]["limit"] == "cost"


async def test_limits_are_settings() -> None:
    """What an operator allows is answered."""
    query = "{ run(id: 1) { " + "parent { " * 30 + "id" + " }" * 30 + " } }"
    async with (
        serving(await memory_of(), settings=Settings(no_auth=True, max_depth=40)) as live,
        httpx.AsyncClient() as client,
    ):
        assert "errors" not in (await client.post(live.http, json={"query": query})).json()


@pytest.mark.soak
async def test_others_are_answered_meanwhile(live: Live) -> None:
    """While hostile documents are refused one after the other, no request of another client waits for long."""

    async def attack() -> None:
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            for query in HOSTILE.values():
                await client.post(live.http, json={"query": query})

    waits = []
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        attacks = [asyncio.create_task(attack()) for _ in range(3)]
        while not all(task.done() for task in attacks):
            began = time.monotonic()
            await client.post(live.http, json={"query": "{ runs { totalCount } }"})
            waits.append(time.monotonic() - began)
        await asyncio.gather(*attacks)
    print(f"longest wait: {max(waits) * 1000:.0f} ms")
    assert len(waits) > 10
