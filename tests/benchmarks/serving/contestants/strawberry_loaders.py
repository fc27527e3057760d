"""(a) Strawberry over Redis as its documentation teaches: types by annotations, DataLoaders made for each request.

A loader's batch is one pipeline of HGETALLs. What runs there are, and their order, is told by Merlin's name map of
runs, workspace to id, so a page reads only the runs that it shows.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import strawberry
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader

from tests.benchmarks.serving.contestants.plain import App
from tests.benchmarks.serving.contestants.types import (
    CreateRunInput,
    LogicalWorker,
    PageInfo,
    RunFilter,
    RunStatus,
    Study,
    UserError,
    launch_order,
)

_PIPELINE = 1000
"""Records to a pipeline."""


@dataclass
class Context:
    redis: Any
    """A `Redis`, whose types do not know that it decodes its replies."""
    runs: DataLoader[str, Run | None]
    studies: DataLoader[str, Study | None]
    workers: DataLoader[str, LogicalWorker | None]


Info: TypeAlias = strawberry.Info[Context, None]


@strawberry.type
class Run:
    id: strawberry.ID
    workspace: str
    status: RunStatus
    queues: list[str]
    study_id: strawberry.Private[str]
    worker_ids: strawberry.Private[list[str]]

    @strawberry.field
    async def study(self, info: Info) -> Study | None:
        return await info.context.studies.load(self.study_id)

    @strawberry.field
    async def workers(self, info: Info) -> list[LogicalWorker]:
        return [worker for worker in await info.context.workers.load_many(self.worker_ids) if worker is not None]


@strawberry.type
class RunConnection:
    nodes: list[Run]
    total_count: int
    page_info: PageInfo


@strawberry.type
class Query:
    @strawberry.field
    async def runs(self, info: Info, first: int = 50, filter: RunFilter | None = None) -> RunConnection:  # noqa: A002 - the contract's argument
        names = await info.context.redis.hgetall("run:name")
        ids = [id_ for workspace, id_ in sorted(names.items(), key=lambda item: launch_order(*item))]
        if filter is None:
            found = await _runs(info, ids[:first])
            return RunConnection(nodes=found, total_count=len(ids), page_info=PageInfo(has_next_page=len(ids) > first))
        runs = [run for run in await _runs(info, ids) if run.status is filter.status.eq]
        studies = await info.context.studies.load_many([run.study_id for run in runs])
        matching = [
            run
            for run, study in zip(runs, studies, strict=True)
            if study is not None and study.name.startswith(filter.study.name.starts_with)
        ]
        page = PageInfo(has_next_page=len(matching) > first)
        return RunConnection(nodes=matching[:first], total_count=len(matching), page_info=page)


async def _runs(info: Info, ids: list[str]) -> list[Run]:
    return [run for run in await info.context.runs.load_many(ids) if run is not None]


@strawberry.type
class CreateRunPayload:
    run: Run | None
    user_errors: list[UserError]


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def create_run(self, info: Info, input: CreateRunInput) -> CreateRunPayload:  # noqa: A002 - the contract's argument
        """Reads, changes and writes, as Merlin does: two at once may lose a link of the study to its run."""
        redis = info.context.redis
        if await redis.hexists("run:name", input.workspace):
            return CreateRunPayload(run=None, user_errors=[UserError(message="There is such a run.")])
        study_id = await redis.hget("study:name", input.study_name)
        id_ = str(uuid.uuid4())
        async with redis.pipeline(transaction=False) as pipeline:
            if study_id is None:
                study_id = str(uuid.uuid4())
                study = {"additional_data": "{}", "id": study_id, "name": input.study_name, "runs": json.dumps([id_])}
                pipeline.hset(f"study:{study_id}", mapping=study)
                pipeline.hset("study:name", input.study_name, study_id)
            else:
                runs = json.loads(await redis.hget(f"study:{study_id}", "runs") or "[]")
                pipeline.hset(f"study:{study_id}", "runs", json.dumps([*runs, id_]))
            record = _run_record(id_, study_id, input)
            pipeline.hset(f"run:{id_}", mapping=record)
            pipeline.hset("run:name", input.workspace, id_)
            await pipeline.execute()
        return CreateRunPayload(run=_read_run(record), user_errors=[])


def _run_record(id_: str, study_id: str, given: CreateRunInput) -> dict[str, str]:
    return {
        "additional_data": "{}",
        "id": id_,
        "study_id": study_id,
        "workspace": given.workspace,
        "steps": "[]",
        "queues": json.dumps(given.queues),
        "workers": "[]",
        "parent": "null",
        "child": "null",
        "run_status": RunStatus.INITIALIZED.value,
        "parameters": "{}",
        "samples": "{}",
    }


def _read_run(record: dict[str, str]) -> Run:
    return Run(
        id=strawberry.ID(record["id"]),
        workspace=record["workspace"],
        status=RunStatus(record["run_status"]),
        queues=json.loads(record["queues"]),
        study_id=record["study_id"],
        worker_ids=json.loads(record["workers"]),
    )


def _read_study(record: dict[str, str]) -> Study:
    return Study(id=strawberry.ID(record["id"]), name=record["name"])


def _read_worker(record: dict[str, str]) -> LogicalWorker:
    queues = sorted(json.loads(record["queues"])["__set__"])
    return LogicalWorker(id=strawberry.ID(record["id"]), name=record["name"], queues=queues)


async def _load(redis: Redis, kind: str, read: Any, ids: list[str]) -> list[Any]:
    records: list[dict[str, str]] = []
    for start in range(0, len(ids), _PIPELINE):
        async with redis.pipeline(transaction=False) as pipeline:
            for id_ in ids[start : start + _PIPELINE]:
                pipeline.hgetall(f"{kind}:{id_}")
            records += await pipeline.execute()
    return [read(record) if record else None for record in records]


class View(GraphQL[Context, None]):
    def __init__(self, schema: strawberry.Schema, redis: Redis) -> None:
        super().__init__(schema)
        self.redis = redis

    async def get_context(
        self,
        request: Request | WebSocket,  # noqa: ARG002 - the view's signature
        response: Response | WebSocket,  # noqa: ARG002 - as above
    ) -> Context:
        return Context(
            redis=self.redis,
            runs=DataLoader(load_fn=partial(_load, self.redis, "run", _read_run)),
            studies=DataLoader(load_fn=partial(_load, self.redis, "study", _read_study)),
            workers=DataLoader(load_fn=partial(_load, self.redis, "logical_worker", _read_worker)),
        )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[App]:
    async with Redis.from_url(url, decode_responses=True) as redis:
        yield View(strawberry.Schema(query=Query, mutation=Mutation), redis)
