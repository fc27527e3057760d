"""What it costs to create and to delete a run of a study that has many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.growth.asking import Cost, answers, body_of, cost_of
from tests.benchmarks.growth.data import insert, one_study
from tests.benchmarks.growth.figures import Figure
from tests.benchmarks.serving.processes import Process
from tests.support.servers import RedisServer

SIZES = (100, 1_000, 10_000, 100_000)
MUTATIONS = 100
WARM_UP = 10
GOAL = 4.0
CREATE = """
mutation Create($input: CreateRunInput!) {
  createRun(input: $input) { run { id workspace study { name } } userErrors { message } }
}
"""
DELETE = "mutation Delete($input: DeleteRunInput!) { deleteRun(input: $input) { deletedIds userErrors { message } } }"


def figures(server: RedisServer, directory: Path) -> Iterator[Figure]:
    costs = {size: _costs(server, directory, size) for size in SIZES}
    for place, name in enumerate(("createRun", "deleteRun")):
        for size in SIZES:
            cost = costs[size][place]
            yield Figure(f"`{name}` in a study of {size:,} runs: CPU of the server", cost.server, "ms")
            yield Figure(f"the same: CPU of Redis, beside a server of its own for {size:,} runs", cost.database, "ms")
        ratio = costs[SIZES[-1]][place].server / costs[SIZES[0]][place].server
        yield Figure(f"`{name}`: the server's for {SIZES[-1]:,} runs ÷ for {SIZES[0]:,}", ratio, "×", GOAL)  # noqa: RUF001 - a factor


def _costs(server: RedisServer, directory: Path, runs: int) -> tuple[Cost, Cost]:
    """Of creating and of deleting."""
    name = f"large_{runs}"
    with server.client() as client:
        client.flushall()
    asyncio.run(insert(server.url, one_study(name, runs)))
    with Process("main", server.url, directory / name) as process:
        warm = [_create(name, number) for number in range(WARM_UP)]
        made = [answer["createRun"]["run"]["id"] for answer in answers(process, warm)]
        created = cost_of(process, server, [_create(name, WARM_UP + number) for number in range(MUTATIONS)])
        made += [_id_of(process, name, WARM_UP + number) for number in range(MUTATIONS)]
        bodies = [body_of(DELETE, {"input": {"id": id_}}) for id_ in made]
        for _ in answers(process, bodies[:WARM_UP]):
            pass
        deleted = cost_of(process, server, bodies[WARM_UP:])
    return created, deleted


def _workspace(study: str, number: int) -> str:
    return f"grown/{study}_{number}_20260101-000000"  # relative: of no directory where a server may write


def _create(study: str, number: int) -> bytes:
    given = {"workspace": _workspace(study, number), "studyName": study, "queues": ["[merlin]_grown"]}
    return body_of(CREATE, {"input": given})


def _id_of(process: Process, study: str, number: int) -> str:
    query = body_of(
        "query($workspace: String!) { run(workspace: $workspace) { id } }", {"workspace": _workspace(study, number)}
    )
    (answer,) = answers(process, [query])
    id_: str = answer["run"]["id"]
    return id_
