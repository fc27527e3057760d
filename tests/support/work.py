"""Counts the fields of a response as graphql-core resolves them: what the cost of an operation is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphql import ExecutionResult, GraphQLFieldResolver, GraphQLSchema, execute_sync

from schema.context import Context
from schema.operation import Operation


def fields_of(
    schema: GraphQLSchema, operation: Operation, variables: Mapping[str, Any] | None, context: Context
) -> int | None:
    """How many fields are resolved; None if there is an error."""
    resolved = 0

    def count(resolve: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        nonlocal resolved
        resolved += 1
        return resolve(*arguments, **named)

    return resolved if succeeds_by(count, schema, operation, variables, context) else None


def succeeds_by(
    middleware: GraphQLFieldResolver,
    schema: GraphQLSchema,
    operation: Operation,
    variables: Mapping[str, Any] | None,
    context: Context,
) -> bool:
    """Lets graphql-core execute a query, each field by the middleware. Returns whether there is no error."""
    result = execute_sync(
        schema,
        operation.document,
        context_value=context,
        variable_values=None if variables is None else dict(variables),
        operation_name=operation.name,
        middleware=[middleware],
    )
    assert isinstance(result, ExecutionResult)
    return not result.errors
