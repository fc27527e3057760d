"""Access to graphql-core's schema within strawberry's: all that has no public name there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from graphql import GraphQLSchema


def core_of(schema: strawberry.Schema) -> GraphQLSchema:
    core: GraphQLSchema = schema._schema  # noqa: SLF001 - there is no public name
    return core


def has_exception_handlers(schema: strawberry.Schema) -> bool:
    return bool(schema.schema_converter._exception_handler_specs)  # noqa: SLF001 - as above


def scalars_of(schema: strawberry.Schema) -> Mapping[object, Any]:
    """The scalars by which strawberry converts arguments."""
    return schema.schema_converter.scalar_registry
