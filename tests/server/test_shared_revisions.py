"""Revisions and ETags mean the same at every server of a database, so that a client may hop between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx
import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.revision_count import MAX_REVISION, RevisionCount
from server.database.merlin_database import opened
from server.database.models import EntityKind, Key
from tests.conftest import Store
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import Writer

pytestmark = pytest.mark.anyio

ANNOTATE = 'mutation { annotate(input: {id: "%s", annotations: {n: %s}}) { userErrors { code } } }'
CREATE = 'mutation { createStudy(input: {name: "%s"}) { study { id } } }'
STUDIES = "{ studies(first: 500) { nodes { name id } } runs { nodes { workspace annotations } } }"
COUNTS = "{ database { revision studies runs } }"
INTEGRITY = "{ integrity { problems { kind } } }"
KEY = "merlin-graphql:revision"


@pytest.fixture(autouse=True)
def shared_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.database.revision_sharing._INTERVAL", 0.05)


@pytest.fixture
def merlin(store: Store) -> Iterator[Writer]:
    with closing(store.writer()) as writer:
        yield writer


def backend_of(url: str, **options: Any) -> ResultsBackend:
    return make_backend(url, BackendOptions(**options))


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Live, Live]]:
    async with serving(backend_of(url)) as one, serving(backend_of(url)) as other:
        yield one, other


async def ask(live: Live, query: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return await client.post(live.http, json={"query": query}, headers=named)


def is_quiet(*servers: Live) -> bool:
    """Whether all servers have the same content, and the number that is stored."""
    states = {live.database.state[:2] for live in servers}
    stored = {live.database.backend.revisions.stored for live in servers}
    return len(states) == 1 and stored == {servers[0].database.revision}


async def change(servers: tuple[Live, Live], merlin: Writer, chance: random.Random, number: int) -> None:
    """One change by a server or by Merlin."""
    match chance.randrange(4):
        case 0 | 1:
            created = await ask(chance.choice(servers), CREATE % f"study_{number}")
            id_ = created.json()["data"]["createStudy"]["study"]["id"]
            noted = await ask(chance.choice(servers), ANNOTATE % (id_, number))
            assert noted.json()["data"]["annotate"]["userErrors"] == []
        case 2:
            merlin.create(run(number), study(1000 + number))
        case _:
            merlin.delete(Key(EntityKind.RUN, uid(chance.randrange(number + 1))))


async def test_when_it_is_quiet_all_servers_say_the_same(store: Store, merlin: Writer) -> None:
    """After changes by each of them and by Merlin: equal revisions, ETags and answers, and each knows all ETags.

    What a server has noticed by itself keeps an ETag of its own.
    """
    chance = random.Random(16)
    async with two(store.url) as servers:
        one, other = servers
        for number in range(12):
            await change(servers, merlin, chance, number)
        await asyncio.gather(*(live.database.feed.catch_up() for live in servers))
        await until(lambda: is_quiet(one, other))
        for query in (STUDIES, COUNTS):
            here, there = await ask(one, query), await ask(other, query)
            assert (here.content, here.headers["etag"]) == (there.content, there.headers["etag"])
            known = await ask(other, query, if_none_match=here.headers["etag"])
            assert (known.status_code, known.content) == (304, b"")
        here, there = await ask(one, INTEGRITY), await ask(other, INTEGRITY)
        assert here.headers["etag"] != there.headers["etag"]
        revision = one.database.revision
        await ask(one, CREATE % "more")
        assert one.database.revision > revision  # by one, and by what a busy machine tells late
        assert (await ask(one, COUNTS)).headers["etag"] != (await ask(one, STUDIES)).headers["etag"]
        assert (await ask(one, STUDIES, if_none_match=known.headers["etag"])).status_code == 200


async def test_an_answer_has_the_same_etag_whenever_the_content_is_the_same(store: Store, merlin: Writer) -> None:
    """Also after a change that was undone; an answer that tells the revision has another one."""
    async with two(store.url) as (one, other):
        before = await ask(one, STUDIES)
        counted = await ask(one, COUNTS)
        merlin.create(run(1))
        await until(lambda: len(one.database.runs) == 1)
        assert (await ask(one, STUDIES)).headers["etag"] != before.headers["etag"]
        merlin.delete(Key(EntityKind.RUN, uid(1)))
        await until(lambda: len(one.database.runs) == 0)
        await until(lambda: not one.database.read_model.histories.by_run)  # is removed a little later than its run
        assert (await ask(one, STUDIES)).headers["etag"] == before.headers["etag"]
        again = await ask(one, COUNTS, if_none_match=counted.headers["etag"])
        assert (again.status_code, again.headers["etag"] == counted.headers["etag"]) == (200, False)
        await until(lambda: is_quiet(one, other))


async def test_a_client_that_hops_sees_nothing_go_back(store: Store, merlin: Writer) -> None:
    """With the position of each answer in the next request, while Merlin and a server write."""
    async with two(store.url) as servers:
        position = (await ask(servers[0], COUNTS)).headers["x-position"]
        last = 0, 0
        for number in range(24):
            if number % 2:
                merlin.create(study(number))
            else:
                created = await ask(servers[number % 4 // 2], CREATE % f"own_{number}", x_read_after=position)
                position = created.headers["x-position"]
            read = await ask(servers[number % 3 % 2], COUNTS, x_read_after=position)
            position = read.headers["x-position"]
            told = read.json()["data"]["database"]
            seen = told["revision"], told["studies"]
            assert seen[0] >= last[0]
            assert seen[1] >= last[1]
            last = seen
        await until(lambda: is_quiet(*servers))


async def test_a_position_is_taken_before_its_number_is_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One server has counted more changes of Merlin's than another, and has not told so yet."""
    monkeypatch.setattr("server.database.revision_sharing._INTERVAL", 600.0)
    async with two(store.url) as (one, other):
        await ask(one, CREATE % "study")
        one.database.backend.revisions.own += 50
        told = await ask(one, COUNTS)
        read = await ask(other, COUNTS, x_read_after=told.headers["x-position"])
        assert read.json() == told.json()
        assert other.database.backend.revisions.stored < other.database.revision


async def test_the_revision_goes_on_after_a_restart(store: Store, merlin: Writer) -> None:
    """From the number in the database, and one further: Merlin may have written meanwhile."""
    async with opened(backend_of(store.url)) as database:
        for number in range(3):
            await database.studies.create(f"study_{number}")
        last = database.revision
        assert last >= 3
    async with opened(backend_of(store.url)) as database:
        assert database.revision == last + 1
        merlin.create(run(1))
        await until(lambda: database.backend.revisions.stored == last + 2)
    async with opened(backend_of(store.url, read_only=True), read_only=True) as database:
        assert database.revision == last + 2


async def test_a_server_that_only_reads_stores_nothing(store: Store, merlin: Writer) -> None:
    """It counts for itself what Merlin changes."""
    async with opened(backend_of(store.url)):
        pass  # which makes the file
    async with opened(backend_of(store.url, read_only=True), read_only=True) as database:
        before = database.backend.revisions.stored
        for number in range(3):
            merlin.create(run(number))
            await until(lambda number=number: len(database.runs) == number + 1)  # type: ignore[misc]
        await asyncio.sleep(0.2)  # four times as long as it would take
        await database.backend.read_revision()
        assert (database.backend.revisions.stored, database.revision >= before + 3) == (before, True)


async def test_a_lost_count_is_stored_again(store: Store, merlin: Writer) -> None:
    """Merlin's flush takes it along. The server goes on from its own."""
    async with two(store.url) as (one, other):
        for number in range(3):
            await ask(one, CREATE % f"study_{number}")
        await until(lambda: is_quiet(one, other))
        last = one.database.revision
        merlin.flush()
        await until(lambda: len(one.database.studies) == 0)
        await ask(one, CREATE % "new")
        await until(lambda: is_quiet(one, other))
        assert one.database.revision > last


@pytest.mark.parametrize(
    "damage", ["set x", "set -5", "set 99999999999999999999", "lpush x", "set 2147483648", "set ü"]
)
async def test_what_others_write_there_does_no_harm(redis_server: RedisServer, damage: str) -> None:
    """The count is written anew, also by the next mutation."""
    async with opened(backend_of(redis_server.url)) as database:
        await database.studies.create("before")
        last = database.revision
        command, value = damage.split()
        with redis_server.client() as client:
            client.delete(KEY)
            client.execute_command(command, KEY, value)
            await database.studies.create("after")
            assert database.revision > last
            await until(lambda: (client.type(KEY), client.get(KEY)) == ("string", str(database.revision)))


async def test_a_number_alone_is_no_change(store: Store) -> None:
    """A higher number is taken over without an event, and ETags stay; only an answer that has it gets a new one."""
    async with two(store.url) as (one, other):
        await ask(one, CREATE % "study")
        await until(lambda: is_quiet(one, other))
        kept, counted = await ask(other, STUDIES), await ask(other, COUNTS)
        heard = other.database.notifier.next
        await one.database.backend.store_revision(500)
        await until(lambda: other.database.revision == one.database.revision == 500)
        size = other.database.read_model.local_revision
        assert (await ask(other, STUDIES)).headers["etag"] == kept.headers["etag"]
        again = await ask(other, COUNTS)
        assert again.headers["etag"] != counted.headers["etag"]
        assert again.json()["data"]["database"]["revision"] == 500
        assert other.database.read_model.local_revision == size
        assert not heard.is_set()


async def test_nobody_uses_up_the_numbers_by_a_position(redis_server: RedisServer) -> None:
    """One that was made up takes the revision a bounded step further."""
    async with serving(backend_of(redis_server.url)) as live:
        answer = await ask(live, COUNTS, x_read_after=f"{'0' * 16}.{10**14}")
        assert answer.json()["data"]["database"]["revision"] <= 20_000


def test_the_revision_stays_an_int() -> None:
    """At its end it stays at the highest one, in the database as well."""
    count = RevisionCount()
    to_store = []
    for stored in (str(MAX_REVISION), None, str(MAX_REVISION + 1)):
        count.note_stored(stored)
        count.advance()
        to_store.append(count.to_store)
    assert to_store == [None, MAX_REVISION, MAX_REVISION]
    assert count.own == MAX_REVISION + 2


async def test_the_last_number_is_told_as_it_is(store: Store) -> None:
    """A mutation at the end of the numbers is made, and everything is still read afresh."""
    async with two(store.url) as (one, other):
        await one.database.backend.store_revision(MAX_REVISION)
        await until(lambda: other.database.revision == one.database.revision == MAX_REVISION)
        for number in range(2):
            written = await ask(one, CREATE % f"study_{number}")
            read = await ask(other, COUNTS, x_read_after=written.headers["x-position"])
            told = read.json()["data"]["database"]
            assert (told["revision"], told["studies"]) == (MAX_REVISION, number + 1)
