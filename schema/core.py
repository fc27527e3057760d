"""Access to graphql-core's schema within strawberry's: all that has no public name there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from graphql import GraphQLInputObjectType, GraphQLSchema
from strawberry.schema.schema_converter import GraphQLCoreConverter


def core_of(schema: strawberry.Schema) -> GraphQLSchema:
    core: GraphQLSchema = schema._schema  # noqa: SLF001 - there is no public name
    return core


def mark_one_of(schema: strawberry.Schema) -> None:
    """Tells graphql-core which inputs are `@oneOf`, so that it prints and validates them; strawberry does it itself."""
    for type_ in core_of(schema).type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            type_.is_one_of = type_.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].is_one_of


def has_exception_handlers(schema: strawberry.Schema) -> bool:
    return bool(schema.schema_converter._exception_handler_specs)  # noqa: SLF001 - as above


def scalars_of(schema: strawberry.Schema) -> Mapping[object, Any]:
    """The scalars by which strawberry converts arguments."""
    return schema.schema_converter.scalar_registry
