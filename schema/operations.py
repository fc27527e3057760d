"""Runs the operations of clients: a document is read once, and a subscription answers as often as its source tells."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    create_source_event_stream,
    execute_root_selection_set,
    execute_subscription_event,
    get_operation_ast,
    parse,
    validate,
)

from schema.context import Context
from schema.errors import BadInput, translate
from schema.query import Query

_REMEMBERED = 256
"""Documents."""
_LONGEST_REMEMBERED = 20_000
"""Characters of a document; a longer one is read each time."""

T = TypeVar("T")
Answer: TypeAlias = dict[str, Any]
"""`data`, and `errors` where there are any, as they are sent."""


class OperationError(Exception):
    """It could not be begun: nothing was executed."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = [translate(error).formatted for error in errors]


@dataclass(frozen=True, slots=True)
class Operation:
    """A valid operation of a document, not yet given its variables."""

    document: DocumentNode
    definition: OperationDefinitionNode

    @property
    def type(self) -> OperationType:
        return self.definition.operation

    @property
    def name(self) -> str | None:
        return None if self.definition.name is None else self.definition.name.value


class Operations:
    def __init__(self, schema: strawberry.Schema) -> None:
        self._schema: GraphQLSchema = schema._schema  # noqa: SLF001 - strawberry has no public name for it
        self._documents: OrderedDict[str, DocumentNode] = OrderedDict()
        self._finishing: set[asyncio.Future[ExecutionResult]] = set()

    def read(self, text: str, name: str | None = None) -> Operation:
        """The operation of that name, or the only one. Raises `OperationError`."""
        document = self._document(text)
        definition = get_operation_ast(document, name)
        if definition is None:
            known = "This document holds several operations: say which, by its name."
            message = known if name is None else f"This document holds no operation {name!r}."
            raise OperationError([BadInput(message, "operationName")])
        return Operation(document, definition)

    async def answers(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> AsyncGenerator[Answer]:
        """One answer to a query or a mutation, and to a subscription one for each event of its source.

        Raises `OperationError` before the first of them.
        """
        executor = Executor.build(
            self._schema,
            operation.document,
            context_value=context,
            raw_variable_values=None if variables is None else dict(variables),
            operation_name=operation.name,
        )
        if isinstance(executor, list):
            raise OperationError(executor)
        if operation.type is OperationType.QUERY:
            yield _answer(await _settled(execute_root_selection_set(executor)))
            return
        if operation.type is OperationType.MUTATION:
            yield _answer(await self._to_the_end(execute_root_selection_set(executor)))
            return
        source = await _settled(create_source_event_stream(executor))
        if isinstance(source, ExecutionResult):
            raise OperationError(source.errors or [])
        async with aclosing(cast("AsyncGenerator[Any]", source)) as events:
            try:
                async for answer in _answers_to(events, executor):
                    yield answer
            except Exception as error:  # noqa: BLE001 - a source that fails ends its operation, and is logged
                raise OperationError([GraphQLError("", original_error=error)]) from None

    async def _to_the_end(self, result: ExecutionResult | Awaitable[ExecutionResult]) -> ExecutionResult:
        """A mutation that has begun is finished, also where its client goes away meanwhile."""
        task = asyncio.ensure_future(_settled(result))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return await asyncio.shield(task)

    def _document(self, text: str) -> DocumentNode:
        known = self._documents.get(text)
        if known is not None:
            self._documents.move_to_end(text)
            return known
        try:
            document = parse(text)
            errors = validate(self._schema, document)
        except GraphQLError as error:
            raise OperationError([error]) from None
        except RecursionError:
            raise OperationError([BadInput("This document is nested too deeply.", "query")]) from None
        if errors:
            raise OperationError(errors)
        if len(text) <= _LONGEST_REMEMBERED:
            self._documents[text] = document
            if len(self._documents) > _REMEMBERED:
                self._documents.popitem(last=False)
        return document


async def _answers_to(events: AsyncIterable[Any], executor: Executor[Any]) -> AsyncGenerator[Answer]:
    """A live query answers only where its result is another than before."""
    last: Answer | None = None
    async for event in events:
        answer = _answer(await _settled(execute_subscription_event(executor.build_per_event_executor(event))))
        if isinstance(event, Query):
            if answer == last:
                continue
            last = answer
        yield answer


async def _settled(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value


def _answer(result: ExecutionResult) -> Answer:
    answer: Answer = {"data": result.data}
    if result.errors:
        answer["errors"] = [translate(error).formatted for error in result.errors]
    return answer
