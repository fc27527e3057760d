"""What graphql-core executes an operation with: the values of its variables, and its executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import Executor, GraphQLSchema, get_variable_values

from schema.budget import metering
from schema.compiler.arguments import NO_VARIABLES
from schema.context import Context
from schema.documents import Variables, too_deep
from schema.operation import Operation, OperationError


def variables_of(
    schema: GraphQLSchema, operation: Operation, given: Mapping[str, Any] | None, size: int = 0
) -> Variables:
    """Coerced once, for the measures and for the compiled function. Raises `OperationError`."""
    definitions = operation.definition.variable_definitions
    if not definitions:
        return Variables(given, NO_VARIABLES, size)
    try:
        coerced = get_variable_values(schema, definitions, dict(given or {}), max_errors=1, hide_suggestions=True)
    except RecursionError:
        raise too_deep("These variables are", "variables") from None
    return Variables(given, None if isinstance(coerced, list) else coerced, size)


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
