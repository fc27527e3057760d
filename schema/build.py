"""Puts the schema together."""

from __future__ import annotations

import strawberry
from strawberry.schema.config import StrawberryConfig

from schema.errors import TranslateErrors
from schema.logical_worker import LogicalWorker
from schema.physical_worker import PhysicalWorker
from schema.query import Query
from schema.run import Run
from schema.scalars import SCALARS
from schema.study import Study


def make_schema() -> strawberry.Schema:
    return strawberry.Schema(
        query=Query,
        types=[Study, Run, LogicalWorker, PhysicalWorker],
        config=StrawberryConfig(scalar_map=dict(SCALARS)),
        extensions=[TranslateErrors],
    )
