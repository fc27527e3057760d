"""Executes mutations: graphql-core runs the field, and the compiled function writes the answer of what it returned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from graphql import (
    ExecutionResult,
    Executor,
    GraphQLSchema,
    default_field_resolver,
    default_type_resolver,
    execute_root_selection_set,
)

from schema.context import Context
from schema.documents import Variables
from schema.operation import Operation, OperationError

Answered: TypeAlias = Callable[[Any], Mapping[str, Any] | None]
"""Gives the data of an answer for what the field of a mutation returned; None where graphql-core is to write it."""


class MutationExecutor(Executor[Context]):
    def __init__(self, *args: Any, answered: Answered, **options: Any) -> None:
        super().__init__(*args, **options)
        self._answered = answered

    def collect_and_execute_subfields(
        self, return_type: Any, field_details_list: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        if path.prev is None and (data := self._answered(result)) is not None:
            return data[path.key]
        return super().collect_and_execute_subfields(return_type, field_details_list, path, result, position_context)


def execute_mutation(
    schema: GraphQLSchema,
    operation: Operation,
    variables: Variables,
    context: Context,
    answered: Answered,
    *,
    reveal: bool,
) -> ExecutionResult | Awaitable[ExecutionResult]:
    """The variables are not coerced again, unless they are invalid, or the document has fragments.

    Raises `OperationError` for invalid variables.
    """
    if variables.coerced is None or len(operation.document.definitions) > 1:
        executor = MutationExecutor.build(
            schema,
            operation.document,
            context_value=context,
            raw_variable_values=dict(variables.given or {}),
            operation_name=operation.name,
            hide_suggestions=not reveal,
            answered=answered,
        )
        if isinstance(executor, list):
            raise OperationError(executor)
        return execute_root_selection_set(executor)
    return execute_root_selection_set(
        MutationExecutor(
            schema,
            {},
            {},
            None,
            context,
            operation.definition,
            variables.coerced,
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            hide_suggestions=not reveal,
            answered=answered,
        )
    )
