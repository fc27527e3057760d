"""How far the database may be away: the round trips of mutations, and mutations that share them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeAlias

import pytest

from server.database import turns
from server.database.backends import redis_script
from server.database.merlin_database import MerlinDatabase
from tests.support.feeds import served, until
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

Mutation: TypeAlias = Callable[[MerlinDatabase, str, str, int], Awaitable[Any]]
"""Of a run and a worker; the number is another one each time."""
MUTATIONS: dict[str, Mutation] = {
    "create": lambda database, _run, worker, n: database.runs.create("study", f"/{n}", ["q"], workers=[worker]),
    "create with a study": lambda database, _run, _worker, n: database.runs.create(f"study {n}", f"/{n}", ["q"]),
    "update": lambda database, run, _worker, n: database.runs.update(run, additional_data={"n": n}),
    "attach": lambda database, run, worker, n: (
        database.runs.attach_workers if n % 2 else database.runs.detach_workers
    )(run, [worker]),
    "annotate": lambda database, run, _worker, n: database.annotate(run, {"n": n}),
    "delete": lambda database, _run, _worker, n: database.runs.delete(f"/old{n}", force=True),
}
TRIPS = 2
"""Write, read back."""
MORE_TRIPS = {"annotate": 3}
"""The copy does not have the text of a note, so it is read first."""
CLIENTS = 6


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    with redis_server.client() as client:
        client.script_load(redis_script.SCRIPT)
    async with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.mark.parametrize(("name", "mutation"), MUTATIONS.items(), ids=list(MUTATIONS))
async def test_a_mutation_takes_two_round_trips(proxy: Proxy, name: str, mutation: Mutation) -> None:
    """Writes, where the database is as the copy has it, and reads back what it wrote, at once."""
    async with served(proxy.url) as database:
        worker = await database.logical_workers.create("worker", ["q"])
        run = await database.runs.create("study", "/run", ["q"])
        for number in range(4):
            await database.runs.create("study", f"/old{number}", ["q"])
        proxy.latency = 0.05
        await mutation(database, run.id, worker.id, 0)  # connects
        for number in range(1, 4):
            before = proxy.round_trips
            await mutation(database, run.id, worker.id, number)
            assert proxy.round_trips - before == MORE_TRIPS.get(name, TRIPS)


async def test_changes_of_different_runs_do_not_wait_for_each_other(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are on their way at once when the database is far away."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.01)
    async with served(proxy.url) as database:
        runs = [await database.runs.create("study", f"/{number}", ["q"]) for number in range(CLIENTS)]
        proxy.requests.clear()
        changes = [asyncio.create_task(database.runs.update(run.id, additional_data={"new": 1})) for run in runs]
        await until(lambda: proxy.held == CLIENTS)
        proxy.requests.set()
        changed = await asyncio.gather(*changes)
        assert [run.additional_data for run in changed] == [{"new": 1}] * CLIENTS


async def test_changes_of_the_same_run_repeat_one_after_the_other(
    proxy: Proxy, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that were on their way at once one is made; each of the others conflicts once, and not with the rest."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.01)
    async with served(proxy.url) as database:
        run = await database.runs.create("study", "/run", ["q"])
        proxy.requests.clear()
        changes = [
            asyncio.create_task(database.runs.update(run.id, additional_data={f"{n}": n})) for n in range(CLIENTS)
        ]
        await until(lambda: proxy.held == CLIENTS)
        assert await evaluated(redis_server, proxy, changes) == 2 * CLIENTS - 1
        assert database.runs.get(run.id).additional_data == {f"{n}": n for n in range(CLIENTS)}


async def test_new_runs_of_the_same_study_do_not_conflict(
    proxy: Proxy, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adds its id to the list of runs as it stands by then."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.01)
    async with served(proxy.url) as database:
        await database.studies.create("study")
        proxy.requests.clear()
        changes = [asyncio.create_task(database.runs.create("study", f"/{n}", ["q"])) for n in range(CLIENTS)]
        await until(lambda: proxy.held == CLIENTS)
        assert await evaluated(redis_server, proxy, changes) == CLIENTS
        assert {run.workspace for run in database.studies.get("study").runs} == {f"/{n}" for n in range(CLIENTS)}


async def evaluated(server: RedisServer, proxy: Proxy, changes: Collection[asyncio.Task[Any]]) -> int:
    """How many scripts the server executes until the changes that the proxy holds are done."""
    with server.client() as client:
        client.config_resetstat()
        proxy.requests.set()
        await asyncio.gather(*changes)
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


async def test_a_write_on_its_way_hides_nothing(proxy: Proxy, redis_server: RedisServer) -> None:
    """What others do to a run that is being written is seen, though notices of the write wait for its end."""
    async with served(proxy.url) as database:
        run = await database.runs.create("study", "/run", ["q"])
        proxy.requests.clear()
        change = asyncio.create_task(database.runs.update(run.id, additional_data={"ours": 1}))
        await until(lambda: proxy.held)
        with redis_server.client() as client:
            client.hset(f"run:{run.id}", "additional_data", '{"theirs": 1}')
        await until(lambda: database.runs.get(run.id).additional_data == {"theirs": 1})
        proxy.requests.set()
        assert (await change).additional_data == {"theirs": 1, "ours": 1}
