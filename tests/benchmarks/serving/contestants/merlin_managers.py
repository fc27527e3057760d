"""(b) The same types straight over Merlin's own managers, as a first GraphQL server over Merlin would be written.

Merlin is synchronous and reads its configuration from HOME when it is imported, so this needs a process of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import strawberry
from merlin.db_scripts.merlin_db import MerlinDatabase
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL

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


@dataclass
class Context:
    database: Any
    """Merlin's database, which has no types."""


Info: TypeAlias = strawberry.Info[Context, None]


@strawberry.type
class Run:
    entity: strawberry.Private[Any]

    @strawberry.field
    def id(self) -> strawberry.ID:
        return strawberry.ID(self.entity.get_id())

    @strawberry.field
    def workspace(self) -> str:
        return str(self.entity.get_workspace())

    @strawberry.field
    def status(self) -> RunStatus:
        return RunStatus(self.entity.get_run_status().value)

    @strawberry.field
    def queues(self) -> list[str]:
        return list(self.entity.get_queues())

    @strawberry.field
    def study(self, info: Info) -> Study | None:
        return _study(info, self.entity)

    @strawberry.field
    def workers(self, info: Info) -> list[LogicalWorker]:
        workers = (info.context.database.logical_workers.get(id_) for id_ in self.entity.get_workers())
        return [
            LogicalWorker(id=worker.get_id(), name=worker.get_name(), queues=sorted(worker.get_queues()))
            for worker in workers
        ]


def _study(info: Info, run: Any) -> Study:
    study = info.context.database.studies.get(run.get_study_id())
    return Study(id=study.get_id(), name=study.get_name())


@strawberry.type
class RunConnection:
    nodes: list[Run]
    total_count: int
    page_info: PageInfo


@strawberry.type
class Query:
    @strawberry.field
    def runs(self, info: Info, first: int = 50, filter: RunFilter | None = None) -> RunConnection:  # noqa: A002 - the contract's argument
        chosen = {} if filter is None else {"status": filter.status.eq.value}
        found = info.context.database.runs.get_all(filters=chosen)
        if filter is not None:
            prefix = filter.study.name.starts_with
            found = [run for run in found if _study(info, run).name.startswith(prefix)]
        found.sort(key=lambda run: launch_order(run.get_workspace(), run.get_id()))
        page = PageInfo(has_next_page=len(found) > first)
        return RunConnection(nodes=[Run(entity=run) for run in found[:first]], total_count=len(found), page_info=page)


@strawberry.type
class CreateRunPayload:
    run: Run
    user_errors: list[UserError]


@strawberry.type
class Mutation:
    @strawberry.mutation
    def create_run(self, info: Info, input: CreateRunInput) -> CreateRunPayload:  # noqa: A002 - the contract's argument
        run = info.context.database.runs.create(input.study_name, input.workspace, input.queues)
        return CreateRunPayload(run=Run(entity=run), user_errors=[])


class View(GraphQL[Context, None]):
    def __init__(self, schema: strawberry.Schema) -> None:
        super().__init__(schema)
        self.database = MerlinDatabase()

    async def get_context(
        self,
        request: Request | WebSocket,  # noqa: ARG002 - the view's signature
        response: Response | WebSocket,  # noqa: ARG002 - as above
    ) -> Context:
        return Context(self.database)


@asynccontextmanager
async def opened(_url: str) -> AsyncIterator[App]:
    yield View(strawberry.Schema(query=Query, mutation=Mutation))
