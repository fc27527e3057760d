"""The engine: parses, checks and executes operations; subscribers to the same operation share its execution."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Hashable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakValueDictionary

import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    create_source_event_stream,
    execute_root_selection_set,
    execute_subscription_event,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)

from schema.changes import LiveTick, SubscriptionEvent
from schema.compiler.compiler import Compiler, ExecutionCounts
from schema.context import Context
from schema.coordinates import coordinates_of, name_of
from schema.core import core_of
from schema.deprecations import deprecated, uses_of
from schema.errors import (
    DEADLINE_EXCEEDED,
    FORBIDDEN,
    LIMIT_EXCEEDED,
    MAX_ERRORS,
    PARSE_FAILED,
    VALIDATION_FAILED,
    BadInput,
    translate,
)
from schema.limits import DEFAULTS, Counts, Excess, Limits, count, excesses, measure
from schema.operation import GraphQLResponse, Operation, OperationError
from schema.roles import Role, required_role_of_all
from schema.sharing import SharedAnswers

_REMEMBERED = 256
"""Documents."""
_MAX_REMEMBERED_LENGTH = 20_000
"""Characters of a document; a longer one is read each time."""
TIME_DEPENDENT_FIELDS = frozenset({"PhysicalWorker.heartbeatAge"})
"""Fields whose values change by themselves."""

T = TypeVar("T")


class Engine:
    def __init__(
        self,
        schema: strawberry.Schema,
        limits: Limits = DEFAULTS,
        *,
        introspection: bool = True,
        deadline: float | None = None,
        compiled: bool = True,
    ) -> None:
        """Without `introspection` no message tells of the schema, nor of where the database is.

        `deadline`: seconds that a query or a mutation may take. `compiled`: whether what can be is.
        """
        self._schema = core_of(schema)
        self._compiler = Compiler(schema) if compiled else None
        self._limits = limits
        self._reveal = introspection
        self._rules = specified_rules if introspection else (*specified_rules, NoSchemaIntrospectionCustomRule)
        self._deadline = deadline
        self._has_deprecated = bool(deprecated(self._schema))
        self._documents: OrderedDict[str, _Document] = OrderedDict()
        self._costs: dict[Hashable, int] = {}
        self._finishing: set[asyncio.Future[ExecutionResult]] = set()
        self._shared: WeakValueDictionary[Hashable, SharedAnswers[GraphQLResponse]] = WeakValueDictionary()

    @property
    def reveals(self) -> bool:
        """Whether clients are told of the schema, and of where the database is."""
        return self._reveal

    @property
    def execution_counts(self) -> ExecutionCounts:
        """How often what was executed was compiled."""
        return ExecutionCounts() if self._compiler is None else self._compiler.execution_counts

    def parse(self, text: str, name: str | None = None) -> Operation:
        """The operation of that name, or the only one. Raises `OperationError`, whatever goes wrong."""
        try:
            document = self._document(text)
        except Exception as error:  # noqa: BLE001 - as below
            raise self._failure(error) from None
        definition = get_operation_ast(document.node, name)
        if definition is None:
            known = "This document holds several operations: say which, by its name."
            message = known if name is None else f"This document holds no operation {name!r}."
            raise OperationError([BadInput(message, "operationName")])
        return document.operations[name_of(definition)]

    async def execute(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> AsyncGenerator[GraphQLResponse]:
        """One answer to a query or a mutation, and to a subscription one for each event of its source.

        Raises `OperationError`, whatever goes wrong: before the first of them where it can't be begun, later where its
        source fails.
        """
        try:
            async with aclosing(self._answers(operation, variables, context)) as answers:
                async for answer in answers:
                    yield answer
        except Exception as error:  # noqa: BLE001 - no client waits for an answer that never comes; it is logged
            raise self._failure(error) from None

    async def _answers(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> AsyncGenerator[GraphQLResponse]:
        _check_role(operation, context)
        cost = self._cost(operation, variables or {})
        match operation.type:
            case OperationType.QUERY:
                result = await self._within_deadline(self._result(operation, variables, context))
                yield self._response(operation, result, cost)
            case OperationType.MUTATION:
                executor = self._executor(operation, variables, context)
                result = await self._within_deadline(self._shielded(execute_root_selection_set(executor)))
                yield self._response(operation, result, cost)
            case OperationType.SUBSCRIPTION:
                executor = self._executor(operation, variables, context)
                shared = self._shared_responses(operation, variables, context, cost)
                async with (
                    aclosing(await self._events(executor)) as events,
                    aclosing(self._responses(events, shared)) as answers,
                ):
                    async for answer in answers:
                        yield answer

    def execute_sync(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> GraphQLResponse | None:
        """Of a query that is compiled, and where nothing goes wrong; else None, and `answers` tells more.

        Raises `OperationError`.
        """
        if self._compiler is None or operation.type is not OperationType.QUERY:
            return None
        _check_role(operation, context)
        cost = self._cost(operation, variables or {})
        data = self._data(operation, variables, context, None)
        return None if data is None else self._response(operation, ExecutionResult(data, None), cost)

    def _data(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, event: Any
    ) -> dict[str, Any] | None:
        """By its compiled function, if there is one."""
        if self._compiler is None:
            return None
        return self._compiler.answer(
            operation.text, operation.document, operation.definition, variables, context, event
        )

    def _result(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, event: Any = None
    ) -> ExecutionResult | Awaitable[ExecutionResult]:
        """By its compiled function, else by graphql-core on the same revision: nothing is awaited in between."""
        data = self._data(operation, variables, context, event)
        if data is not None:
            return ExecutionResult(data, None)
        executor = self._executor(operation, variables, context, event)
        is_event = operation.type is OperationType.SUBSCRIPTION
        return (execute_subscription_event if is_event else execute_root_selection_set)(executor)

    def _executor(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, event: Any = None
    ) -> Executor[Any]:
        try:
            executor = Executor.build(
                self._schema,
                operation.document,
                event,
                context_value=context,
                raw_variable_values=None if variables is None else dict(variables),
                operation_name=operation.name,
                hide_suggestions=not self._reveal,
            )
        except RecursionError:
            raise _too_deep("These variables are", "variables") from None
        if isinstance(executor, list):
            raise OperationError(executor)
        return executor

    async def _within_deadline(self, result: T | Awaitable[T]) -> T:
        if not isinstance(result, Awaitable):
            return result
        timeout = asyncio.timeout(self._deadline)
        try:
            async with timeout:
                return await result
        except TimeoutError:
            if not timeout.expired():
                raise
            told = f"This took longer than {self._deadline:g} s. A change that has begun goes on: look, then try again."
            raise OperationError([GraphQLError(told)], DEADLINE_EXCEEDED) from None

    def _response(self, operation: Operation, result: ExecutionResult, cost: int) -> GraphQLResponse:
        return GraphQLResponse(result, operation.deprecations, reveal=self._reveal, cost=cost)

    def _shared_responses(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, cost: int
    ) -> SharedAnswers[GraphQLResponse]:
        async def answer(event: SubscriptionEvent) -> GraphQLResponse:
            # An executor of its own for each event: graphql-core 3.3.2 keeps what it made for an event in the
            # copies of one executor that it has for this, as long as the subscription lasts.
            result = await _settled(self._result(operation, variables, context, event))
            return self._response(operation, result, cost)

        try:
            given = json.dumps(variables, sort_keys=True, default=repr)  # a number that can't be kept is no JSON
        except RecursionError:
            raise _too_deep("These variables are", "variables") from None
        key = operation.text, operation.name, given, context
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = SharedAnswers(answer)
        return shared

    async def _shielded(self, result: ExecutionResult | Awaitable[ExecutionResult]) -> ExecutionResult:
        """A mutation that has begun is finished, also where its client goes away meanwhile."""
        task = asyncio.ensure_future(_settled(result))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return await asyncio.shield(task)

    def _check(
        self,
        document: DocumentNode,
        definition: OperationDefinitionNode,
        counts: Counts,
        variables: Mapping[str, Any] | None = None,
    ) -> int:
        """Its cost; without variables, that of what it asks for at least. Raises `OperationError`."""
        measures = measure(self._schema, document, definition, variables, counts=counts, unknown=1)
        if found := excesses(measures, self._limits):
            raise _limit_exceeded(found)
        return measures.cost

    def _cost(self, operation: Operation, variables: Mapping[str, Any]) -> int:
        """With its variables: what has passed with values of the same sizes passes. Raises `OperationError`."""
        key = operation.text, operation.name, *((name, _size(value)) for name, value in variables.items())
        cost = self._costs.get(key)
        if cost is None:
            try:
                cost = self._check(operation.document, operation.definition, operation.counts, dict(variables))
            except RecursionError:
                raise _too_deep("These variables are", "variables") from None
            if len(self._costs) >= _REMEMBERED:
                self._costs.clear()
            self._costs[key] = cost
        return cost

    def _document(self, text: str) -> _Document:
        known = self._documents.get(text)
        if known is not None:
            self._documents.move_to_end(text)
            return known
        try:
            document = self._parsed(text)
            errors = validate(
                self._schema,
                document.node,
                self._rules,
                max_errors=MAX_ERRORS - 1,  # and one that says that there are more
                hide_suggestions=not self._reveal,
            )
        except GraphQLError as error:
            raise OperationError([error], PARSE_FAILED) from None
        except RecursionError:
            raise _too_deep("This document is", "query") from None
        if errors:
            raise OperationError(errors, VALIDATION_FAILED)
        known = _Document(document.node, self._operations(text, document))
        if len(text) <= _MAX_REMEMBERED_LENGTH:
            self._documents[text] = known
            if len(self._documents) > _REMEMBERED:
                self._documents.popitem(last=False)
        return known

    def _operations(self, text: str, document: _Parsed) -> Mapping[str, Operation]:
        deprecations = uses_of(self._schema, document.node) if self._has_deprecated else ()
        fields = coordinates_of(self._schema, document.node)
        return {
            name_of(node): Operation(
                text,
                document.node,
                node,
                node.operation,
                None if node.name is None else node.name.value,
                document.counts,
                deprecations,
                required_role_of_all(fields[name_of(node)]),
                fields[name_of(node)].isdisjoint(TIME_DEPENDENT_FIELDS),
            )
            for node in document.node.definitions
            if isinstance(node, OperationDefinitionNode)
        }

    def _parsed(self, text: str) -> _Parsed:
        """Not yet validated: that takes long for a document that is beyond the limits, so they come first."""
        if len(text) > self._limits.characters:
            raise _limit_exceeded([Excess("characters", len(text), self._limits.characters)])
        counts = count(text, self._limits)
        if counts.tokens > self._limits.tokens:
            raise _limit_exceeded([Excess("tokens", counts.tokens, self._limits.tokens)])
        node = parse(text)
        for definition in node.definitions:
            if isinstance(definition, OperationDefinitionNode):
                self._check(node, definition, counts)
        return _Parsed(node, counts)

    async def _events(self, executor: Executor[Any]) -> AsyncGenerator[SubscriptionEvent]:
        source = await _settled(create_source_event_stream(executor))
        if isinstance(source, ExecutionResult):
            raise OperationError([translate(error, reveal=self._reveal) for error in source.errors or []])
        return cast("AsyncGenerator[SubscriptionEvent]", source)

    async def _responses(
        self, events: AsyncIterable[SubscriptionEvent], shared: SharedAnswers[GraphQLResponse]
    ) -> AsyncGenerator[GraphQLResponse]:
        """A live query is answered only where its result is another than before."""
        last: bytes | None = None
        async for event in events:
            answer = await shared.to(event)
            if isinstance(event, LiveTick):
                if answer.encoded == last:
                    continue
                last = answer.encoded
            yield answer

    def _failure(self, error: Exception) -> OperationError:
        """What nobody foresaw is logged, and masked."""
        match error:
            case OperationError():
                return error
            case GraphQLError():
                return OperationError([error])
            case _:
                return OperationError([translate(GraphQLError("", original_error=error), reveal=self._reveal)])


class _Parsed(NamedTuple):
    node: DocumentNode
    counts: Counts


class _Document(NamedTuple):
    """Valid."""

    node: DocumentNode
    operations: Mapping[str, Operation]
    """By name."""


def _check_role(operation: Operation, context: Context) -> None:
    """Raises `OperationError`."""
    need, has = operation.required_role, context.role
    if has is None or not (need.role is Role.READ or has.includes(need.role)):
        told = f"{need.field} needs the role {need.role}, and this client has {has or 'none'}."
        raise OperationError([GraphQLError(told, extensions={"code": FORBIDDEN, "needs": need.role})], FORBIDDEN)


def _size(value: object) -> tuple[int] | int | None:
    """All of a variable that a limit may look at: a number, or the length of a list."""
    match value:
        case list():
            return (len(value),)
        case int():
            return value
        case _:
            return None


def _too_deep(what: str, argument: str) -> OperationError:
    return OperationError([BadInput(f"{what} nested too deeply.", argument)])


def _limit_exceeded(found: Sequence[Excess]) -> OperationError:
    """Names limit, value and maximum, to people and to programs."""
    errors = [
        GraphQLError(str(excess), extensions={"code": LIMIT_EXCEEDED, **excess.as_extensions()}) for excess in found
    ]
    return OperationError(errors, LIMIT_EXCEEDED)


async def _settled(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value
