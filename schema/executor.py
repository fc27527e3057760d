"""Makes what graphql-core executes an operation with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import Executor, GraphQLSchema

from schema.budget import metering
from schema.context import Context
from schema.documents import too_deep
from schema.operation import Operation, OperationError


def executor_of(
    schema: GraphQLSchema,
    operation: Operation,
    variables: Mapping[str, Any] | None,
    context: Context,
    event: Any = None,
    *,
    reveal: bool,
) -> Executor[Any]:
    """`reveal`: whether messages may suggest names of the schema. Raises `OperationError`."""
    try:
        executor = Executor.build(
            schema,
            operation.document,
            event,
            context_value=context,
            raw_variable_values=None if variables is None else dict(variables),
            operation_name=operation.name,
            hide_suggestions=not reveal,
            middleware=None if context.budget is None else [metering(context.budget)],
        )
    except RecursionError:
        raise too_deep("These variables are", "variables") from None
    if isinstance(executor, list):
        raise OperationError(executor)
    return executor
