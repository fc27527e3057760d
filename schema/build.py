"""Builds the schema of its root types, and prints it as SDL."""

from __future__ import annotations

from functools import cache

import strawberry
from graphql import build_schema, lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig

from schema.core import core_of, mark_one_of
from schema.logical_worker import LogicalWorker
from schema.mutation import Mutation
from schema.physical_worker import PhysicalWorker
from schema.query import Query
from schema.run import Run
from schema.scalars import SCALARS
from schema.study import Study
from schema.subscription import Subscription
from schema.task import Task


@cache
def make_schema() -> strawberry.Schema:
    """The schema of the contract, which nobody changes: the same one each time.

    `types` are those that only the interface Node leads to.
    """
    schema = strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[Study, Run, LogicalWorker, PhysicalWorker, Task],
        config=StrawberryConfig(
            scalar_map=dict(SCALARS),
            enable_experimental_incremental_execution=True,  # @defer and @stream are in the schema
        ),
    )
    mark_one_of(schema)
    return schema


@cache
def sdl_of(schema: strawberry.Schema) -> str:
    """The schema in GraphQL's definition language, sorted, so that it is the same text each time."""
    plain = build_schema(print_schema(core_of(schema)))  # to sort it, graphql-core needs its own ID
    return f"{print_schema(lexicographic_sort_schema(plain))}\n"
