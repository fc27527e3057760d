"""Positions: what one server has answered, another does not contradict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.models import Entry, Key
from tests.conftest import Store
from tests.support.live import DEADLINE, Live, serving
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

CREATE = 'mutation { createStudy(input: {name: "%s"}) { study { id } } }'
NAMES = "{ studies(first: 500) { nodes { name } } }"


class Slow:
    """A backend's reading, which begins only when it is let."""

    def __init__(self, backend: ResultsBackend) -> None:
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._fetch = backend.fetch
        backend.fetch = self.fetch  # type: ignore[method-assign]

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        await self.may_read.wait()
        return await self._fetch(keys)


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Live, Live, Slow]]:
    """Two servers of one database; the second is behind while it may not read."""
    backend = make_backend(url, BackendOptions())
    slow = Slow(backend)
    async with serving(make_backend(url, BackendOptions())) as one, serving(backend) as other:
        yield one, other, slow


async def ask(live: Live, query: str, **more: Any) -> httpx.Response:
    headers = {"x-read-after": more.pop("after")} if more.get("after") else {}
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return await client.post(live.http, content=json.dumps({"query": query, **more}), headers=JSON | headers)


JSON = {"content-type": "application/json"}


def names(answer: httpx.Response) -> list[str]:
    return [study["name"] for study in answer.json()["data"]["studies"]["nodes"]]


async def test_a_read_after_a_write_at_another_server_waits_for_it(store: Store) -> None:
    """With the position of the write in a header or in the body; without, the copy answers as it is."""
    async with two(store.url) as (one, other, slow):
        slow.may_read.clear()
        written = await ask(one, CREATE % "new")
        position = written.headers["x-position"]
        assert written.json()["extensions"]["position"] == position
        assert names(await ask(other, NAMES)) == []
        reads = [
            asyncio.create_task(ask(other, NAMES, after=position)),
            asyncio.create_task(ask(other, NAMES, extensions={"readAfter": position})),
        ]
        done, _ = await asyncio.wait(reads, timeout=0.3)
        assert not done
        slow.may_read.set()
        assert [names(await read) for read in reads] == [["new"], ["new"]]


async def test_a_position_of_its_own_is_not_waited_for(store: Store) -> None:
    """The server has read back what it wrote before it answered."""
    async with two(store.url) as (one, other, slow):
        written = await ask(other, CREATE % "own")
        slow.may_read.clear()
        assert names(await ask(other, NAMES, after=written.headers["x-position"])) == ["own"]
        assert one.database.position.server != other.database.position.server


@pytest.mark.parametrize("count", [12, pytest.param(40, marks=pytest.mark.soak)])
async def test_many_reads_after_writes_elsewhere_are_all_right(store: Store, count: int) -> None:
    """Of many writes at one server, each is read at the other right after its answer."""
    async with two(store.url) as (one, other, _):
        for number in range(count):
            written = await ask(one, CREATE % f"s{number:03}")
            read = await ask(other, NAMES, after=written.headers["x-position"])
            assert f"s{number:03}" in names(read), number


async def test_what_another_server_has_just_created_is_found_by_a_mutation(store: Store) -> None:
    """Not found in the copy is not the last word: the copy catches up, and the mutation is tried again."""
    async with two(store.url) as (one, other, slow):
        slow.may_read.clear()
        id_ = (await ask(one, CREATE % "new")).json()["data"]["createStudy"]["study"]["id"]
        noting = f'mutation {{ annotate(input: {{id: "{id_}", annotations: {{a: 1}}}}) {{ userErrors {{ code }} }} }}'
        task = asyncio.create_task(ask(other, noting))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        slow.may_read.set()
        assert (await task).json()["data"]["annotate"]["userErrors"] == []
        unknown = await ask(other, noting.replace(id_[:8], "00000000"))
        assert unknown.json()["data"]["annotate"]["userErrors"] == [{"code": "NOT_FOUND"}]


async def test_a_copy_that_stays_behind_says_so(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds, with a code that says to try again; reads without a position go on."""
    monkeypatch.setattr("server.database.feed._CATCH_UP_TIMEOUT", 0.2)
    async with two(redis_server.url) as (one, other, slow):
        slow.may_read.clear()
        position = (await ask(one, CREATE % "new")).headers["x-position"]
        (error,) = (await ask(other, NAMES, after=position)).json()["errors"]
        assert error["extensions"]["code"] == "DATABASE_UNAVAILABLE"
        assert error["message"].endswith("try again.")
        assert names(await ask(other, NAMES)) == []
        slow.may_read.set()


async def test_a_server_that_polls_waits_for_its_next_listing(redis_server: RedisServer) -> None:
    """A Redis that refuses to report changes is listed again and again."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "polling", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
        url = redis_server.url.replace("redis://", "redis://polling:pw@")
        try:
            async with two(url) as (one, other, _):
                written = await ask(one, CREATE % "new")
                assert names(await ask(other, NAMES, after=written.headers["x-position"])) == ["new"]
        finally:
            client.execute_command("ACL", "DELUSER", "polling")


@pytest.mark.parametrize("position", ["", "x", "1", "0" * 16, "0" * 16 + ".", "0" * 16 + ".1" + "0" * 20, "é"])
async def test_what_is_no_position_is_refused(redis_server: RedisServer, position: str) -> None:
    """In the header and in the body, with where to find one."""
    async with serving(make_backend(redis_server.url, BackendOptions())) as live, httpx.AsyncClient() as client:
        header = {b"x-read-after": position.encode()}
        for answer in (
            await client.post(live.http, json={"query": NAMES}, headers=header),
            await client.post(live.http, json={"query": NAMES, "extensions": {"readAfter": position}}),
        ):
            (error,) = answer.json()["errors"]
            assert (answer.status_code, error["extensions"]["code"]) == (400, "BAD_REQUEST")
            assert "`X-Position`" in error["message"]
