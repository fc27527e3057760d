"""A server that is killed: in the middle of deleting many runs, and under a load of mutations."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.checker import cells_of
from tests.support.entities import by_merlin, in_redis
from tests.support.histories import clients, until_done
from tests.support.merlin_process import Merlin
from tests.support.plans import OF_ALL
from tests.support.records import logical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.serving import Serving
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio

DELETE = (
    'mutation { deleteRuns(input: {filter: {workspace: {startsWith: "/runs/"}}}) { deletedIds userErrors { code } } }'
)
PROBLEMS = "{ integrity { problems { kind entityId field message } } }"
REPAIR = "mutation { repair(input: {dryRun: false}) { repaired { kind } userErrors { message } } }"
DEADLINE = "1"
"""Seconds after which nobody waits for the answer of the killed server any more."""
KEY = {"x-idempotency-key": "deletion"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def killed(home: Path, redis_server: RedisServer, runs: int) -> RedisServer:
    """A database in whose deletion a server was killed."""
    worker = logical_worker("sim", runs=tuple(uid(number) for number in range(1, runs + 1)))
    records = [
        run(number, study_id=uid(9_999), workers=(worker.id,), queues=worker.queues, run_status="COMPLETED")
        for number in range(1, runs + 1)
    ]
    with closing(RedisWriter(redis_server.url)) as writer:
        writer.create(study(9_999, runs=worker.runs), worker, *records)
        asyncio.run(kill_in_deletion(home, redis_server.url, writer, runs))
    return redis_server


async def kill_in_deletion(home: Path, url: str, writer: RedisWriter, runs: int) -> None:
    with Serving(home, "--database", url, "--deadline", DEADLINE) as serving:
        address = f"{serving.url}/graphql"
        async with httpx.AsyncClient(timeout=60.0) as client:
            deleting = asyncio.create_task(client.post(address, json={"query": DELETE}, headers=KEY))
            while len(runs_of(writer)) == runs:
                await asyncio.sleep(0)
            serving.process.kill()
            serving.process.wait()
            with pytest.raises(httpx.HTTPError):
                await deleting


def runs_of(writer: RedisWriter) -> set[str]:
    return {key for key in writer.client.scan_iter("run:*", count=5_000) if key != "run:name"}


async def ask(address: str, query: str, headers: dict[str, str] | None = None) -> Any:
    async with httpx.AsyncClient(timeout=60.0) as client:
        return (await client.post(address, json={"query": query}, headers=headers)).json()


@pytest.mark.parametrize("runs", [1_500, pytest.param(5_000, marks=pytest.mark.soak)])
async def test_a_killed_deletion_leaves_whole_runs_and_can_be_sent_again(
    home: Path, killed: RedisServer, runs: int
) -> None:
    """Merlin and `integrity` find nothing that is half deleted, its key tells what was done, and the rest can go."""
    with closing(RedisWriter(killed.url)) as writer, Merlin(home.with_name("merlin"), killed.url) as merlin:
        left = runs_of(writer)
        assert 0 < len(left) < runs
        stored = by_merlin(merlin)
        assert {f"run:{id_}" for id_, entity in stored.items() if entity.kind == "run"} == left
        assert merlin.command("database", "get", "all-runs").errors == ()
        with Serving(home, "--database", killed.url) as serving:
            address = f"{serving.url}/graphql"
            assert (await ask(address, PROBLEMS))["data"]["integrity"]["problems"] == []
            repaired = (await ask(address, REPAIR))["data"]["repair"]
            assert repaired == {"repaired": [], "userErrors": []}
            (error,) = (await ask(address, DELETE, KEY))["errors"]
            assert error["extensions"]["code"] == "UNKNOWN_OUTCOME"
            named = {
                f"run:{effect['id']}" for effect in error["extensions"]["effects"] if effect["action"] == "DELETED"
            }
            assert named
            assert named.isdisjoint(left)
            assert runs_of(writer) == left
            rest = (await ask(address, DELETE))["data"]["deleteRuns"]
            assert rest["userErrors"] == []
            assert {f"run:{id_}" for id_ in rest["deletedIds"]} == left
        assert {entity.kind for entity in by_merlin(merlin).values()} == {"study", "logical_worker"}


async def test_what_clients_were_told_is_true_though_their_server_was_killed(
    home: Path, redis_server: RedisServer
) -> None:
    """One of two, under a load of all mutations: what it had acknowledged is there, and nothing is half done."""
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(Serving(home.with_name(name), "--database", redis_server.url))
            for name in ("one", "other")
        )
        addresses = [f"{serving.url}/graphql" for serving in (one, other)]
        async with clients(6, addresses, 1, OF_ALL, sweeps=0.02) as told:
            await until_done(told, 60)
            one.process.kill()
            one.process.wait()
            await until_done(told, 60)
            async with told.gate.alone():
                with redis_server.client() as client:
                    stored = in_redis(client)
                assert told.check(cells_of(stored)) == []
                problems = (await ask(addresses[1], PROBLEMS))["data"]["integrity"]["problems"]
                assert {problem["kind"] for problem in problems} <= {"EMPTY_STUDY", "ORPHAN_WORKER"}
                with Merlin(home, redis_server.url) as merlin:
                    assert set(by_merlin(merlin)) == stored.keys()
