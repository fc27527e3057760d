"""(c) The limit: a function for each query, over the server's own copy of the database, and no GraphQL at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import orjson

from server.database.merlin_database import MerlinDatabase
from server.database.models import RunStatus
from server.open_database import open_database
from server.settings import Settings
from tests.benchmarks.serving.contestants.plain import App, answering
from tests.benchmarks.serving.queries import QUERIES

Variables: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = Callable[[MerlinDatabase, Variables], Awaitable[Any]]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[App]:
    async with open_database(Settings(database=url)) as database:

        async def answer(body: bytes) -> bytes:
            request = orjson.loads(body)
            data = await ANSWERS[request["query"]](database, request.get("variables", {}))
            return orjson.dumps({"data": data})

        yield answering(answer)


async def runs(count: int, database: MerlinDatabase, _: Variables) -> Any:
    model = database.read_model
    records, studies, workers = model.runs.records, model.studies.records, model.logical_workers.records
    studies_of, workers_of = model.study_runs.owners_of, model.worker_runs.owners_of
    nodes = []
    for _position, id_ in model.runs.order[:count]:
        run = records[id_]
        study = next((studies[study_id] for study_id in studies_of(id_)), None)
        nodes.append(
            {
                "id": id_,
                "workspace": run.workspace,
                "status": run.run_status,
                "queues": run.queues,
                "study": None if study is None else {"id": study.id, "name": study.name},
                "workers": [
                    {"id": worker.id, "name": worker.name, "queues": worker.queues}
                    for worker in map(workers.__getitem__, workers_of(id_))
                ],
            }
        )
    return {"runs": {"nodes": nodes}}


async def failed(database: MerlinDatabase, variables: Variables) -> Any:
    """A filter of just these two conditions, from the studies that match."""
    model = database.read_model
    records, members_of = model.runs.records, model.study_runs.members_of
    status = RunStatus(variables["filter"]["status"]["eq"])
    prefix = variables["filter"]["study"]["name"]["startsWith"]
    names = {study.id: study.name for study in model.studies.records.values() if study.name.startswith(prefix)}
    found = sorted(
        (position, name)
        for study_id, name in names.items()
        for position in members_of(study_id)
        if records[position[1]].run_status is status
    )
    nodes = [
        {"id": id_, "workspace": records[id_].workspace, "status": status, "study": {"name": name}}
        for (_, id_), name in found[:50]
    ]
    return {"runs": {"totalCount": len(found), "nodes": nodes, "pageInfo": {"hasNextPage": len(found) > len(nodes)}}}


async def create_run(database: MerlinDatabase, variables: Variables) -> Any:
    given = variables["input"]
    work = database.unit()
    run = await database.runs.create(given["studyName"], given["workspace"], given["queues"], unit=work)
    await work.finish()
    study = run.study
    node = {
        "workspace": run.workspace,
        "status": run.status,
        "queues": run.queues,
        "study": None if study is None else {"name": study.name},
    }
    return {"createRun": {"run": node, "userErrors": []}}


async def typename(_database: MerlinDatabase, _: Variables) -> Any:
    return {"__typename": "Query"}


ANSWERS: Mapping[str, Answer] = {
    QUERIES["runs-200"].text: partial(runs, 200),
    QUERIES["runs-20"].text: partial(runs, 20),
    QUERIES["runs-1"].text: partial(runs, 1),
    QUERIES["typename"].text: typename,
    QUERIES["filtered"].text: failed,
    QUERIES["create-run"].text: create_run,
}
