"""Puts the schema together."""

from __future__ import annotations

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from schema.errors import TranslateErrors
from schema.logical_worker import LogicalWorker
from schema.mutation import Mutation
from schema.physical_worker import PhysicalWorker
from schema.query import Query
from schema.run import Run
from schema.scalars import SCALARS
from schema.study import Study
from schema.subscription import Subscription


class Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Nothing: `TranslateErrors` logs what nobody foresaw, and what a client did wrong is told to the client."""


def make_schema() -> Schema:
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[Study, Run, LogicalWorker, PhysicalWorker],
        config=StrawberryConfig(scalar_map=dict(SCALARS)),
        extensions=[TranslateErrors],
    )


def sdl_of(schema: strawberry.Schema) -> str:
    """The schema in GraphQL's definition language, with a line break at its end."""
    return f"{schema.as_str()}\n"
