"""The engine: parses, checks and executes operations; subscribers to the same operation share its execution."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
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
from schema.deadlines import within
from schema.deprecations import deprecated, uses_of
from schema.errors import (
    DEADLINE_EXCEEDED,
    FORBIDDEN,
    LIMIT_EXCEEDED,
    MAX_ERRORS,
    PARSE_FAILED,
    UNKNOWN_OUTCOME,
    VALIDATION_FAILED,
    BadInput,
    translate,
)
from schema.limits import DEFAULTS, Counts, Excess, Limits, count, excesses, measure
from schema.operation import GraphQLResponse, Operation, OperationError, Scope
from schema.roles import Role, required_role_of_all
from schema.sharing import SharedAnswers
from server.database.errors import OverdueError
from server.database.replicas import confirmations
from server.database.steps import Steps

_MAX_REMEMBERED = 256
"""Parsed documents."""
_MAX_REMEMBERED_LENGTH = 20_000
"""Characters of a document; a longer one is parsed each time."""
GRACE_SECONDS = 3.0
"""How long after its deadline a mutation may find out what of it was done."""
SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        "PhysicalWorker.heartbeatAge": Scope.CLOCK,
        "Query.integrity": Scope.SERVER,
        "Database.revision": Scope.REVISION,
    }
)
"""Fields whose values depend on more than the content of the database, the most dependent ones first."""

T = TypeVar("T")


class Engine:
    """Executes the operations of one schema, within its limits; it remembers documents and their costs."""

    def __init__(
        self,
        schema: strawberry.Schema,
        limits: Limits = DEFAULTS,
        *,
        introspection: bool = True,
        deadline: float | None = None,
        compiled: bool = True,
    ) -> None:
        """Without `introspection` no message reveals the schema or the address of the database.

        `deadline`: seconds that a query or a mutation may take. `compiled`: whether to compile operations.
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
        self._live_steps = Steps(rests=True)
        self._shared: WeakValueDictionary[Hashable, SharedAnswers[GraphQLResponse]] = WeakValueDictionary()

    @property
    def reveals(self) -> bool:
        """Whether messages reveal the schema and the address of the database."""
        return self._reveal

    @property
    def deadline(self) -> float | None:
        """Seconds that a query or a mutation may take."""
        return self._deadline

    @property
    def execution_counts(self) -> ExecutionCounts:
        """How many operations were compiled, and how many graphql-core executed."""
        return ExecutionCounts() if self._compiler is None else self._compiler.execution_counts

    def parse(self, text: str, name: str | None = None) -> Operation:
        """Parses and validates a document; returns its operation of that name, or its only one.

        Raises `OperationError`, whatever goes wrong.
        """
        try:
            document = self._document(text)
        except Exception as error:  # noqa: BLE001 - as below
            raise self._failure(error) from None
        definition = get_operation_ast(document.node, name)
        if definition is None:
            known = "This document holds several operations: name one of them."
            message = known if name is None else f"This document holds no operation {name!r}."
            raise OperationError([BadInput(message, "operationName")])
        return document.operations[name_of(definition)]

    async def execute(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> AsyncGenerator[GraphQLResponse]:
        """Executes an operation: one response to a query or a mutation, one for each event of a subscription.

        Raises `OperationError`, whatever goes wrong: before the first response if the operation can't be begun, later
        if the source of a subscription fails.
        """
        try:
            async with aclosing(self._answers(operation, variables, context)) as answers:
                async for answer in answers:
                    yield answer
        except Exception as error:  # noqa: BLE001 - it is logged, and the client gets an answer
            raise self._failure(error) from None

    async def _answers(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> AsyncGenerator[GraphQLResponse]:
        check_role(operation, context)
        cost = self._cost(operation, variables or {})
        match operation.type:
            case OperationType.QUERY:
                result = await self._within_deadline(self._result(operation, variables, context))
                yield self._response(operation, result, cost)
            case OperationType.MUTATION:
                with confirmations() as confirmed:
                    result = await self._changed(operation, variables, context)
                position, replicas = str(context.database.position), confirmed.as_extension()
                yield self._response(operation, result, cost, position, replicas)
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
        """The response to a compiled query without errors; else None, and `execute` has to answer it.

        Raises `OperationError`.
        """
        if self._compiler is None or operation.type is not OperationType.QUERY:
            return None
        check_role(operation, context)
        cost = self._cost(operation, variables or {})
        data = self._data(operation, variables, context, None)
        return None if data is None else self._response(operation, ExecutionResult(data, None), cost)

    def _data(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, event: Any
    ) -> dict[str, Any] | None:
        """The result of the compiled function; None if there is none, or it gave up."""
        if self._compiler is None:
            return None
        return self._compiler.answer(
            operation.text, operation.document, operation.definition, variables, context, event
        )

    def _result(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, event: Any = None
    ) -> ExecutionResult | Awaitable[ExecutionResult]:
        """The result of the compiled function, else graphql-core's on the same revision: nothing is awaited between."""
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
        message = f"This took longer than {self._deadline:g} s: ask for less." if self._deadline else ""
        return await within(
            asyncio.timeout(self._deadline), result, OperationError([GraphQLError(message)], DEADLINE_EXCEEDED)
        )

    async def _changed(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> ExecutionResult:
        """The result of a mutation, whose fields keep the deadline themselves: they know what was sent by then.

        Raises `OperationError` where it executed nothing before the deadline.
        """
        patience, context = None, replace(context, done=[])
        if self._deadline is not None:
            patience = self._deadline + GRACE_SECONDS
            context = replace(context, deadline=asyncio.get_running_loop().time() + self._deadline)
        executing = self._shielded(execute_root_selection_set(self._executor(operation, variables, context)))
        unknown = GraphQLError("It is not known what of this was done in time: look before you try again.")
        result = await within(asyncio.timeout(patience), executing, OperationError([unknown], UNKNOWN_OUTCOME))
        errors = result.errors or []
        is_overdue = bool(errors) and all(isinstance(error.original_error, OverdueError) for error in errors)
        if is_overdue:
            raise OperationError([translate(error, reveal=self._reveal) for error in errors])
        return result

    def _response(
        self,
        operation: Operation,
        result: ExecutionResult,
        cost: int,
        position: str | None = None,
        replicas: Mapping[str, int] | None = None,
    ) -> GraphQLResponse:
        return GraphQLResponse(
            result, operation.deprecations, reveal=self._reveal, cost=cost, position=position, replicas=replicas
        )

    def _shared_responses(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context, cost: int
    ) -> SharedAnswers[GraphQLResponse]:
        async def answer(event: SubscriptionEvent) -> GraphQLResponse:
            # A new executor for each event: graphql-core 3.3.2 copies a shared one for each event, and the copies keep
            # the results of all events as long as the subscription lasts.
            result = await _settled(self._result(operation, variables, context, event))
            return self._response(operation, result, cost)

        try:
            given = json.dumps(
                variables, sort_keys=True, default=repr
            )  # `repr` is for numbers that JSON can't hold exactly
        except RecursionError:
            raise _too_deep("These variables are", "variables") from None
        key = operation.text, operation.name, given, context
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = SharedAnswers(answer, self._live_steps)
        return shared

    async def _shielded(self, result: ExecutionResult | Awaitable[ExecutionResult]) -> ExecutionResult:
        """Finishes a mutation that has begun, even if its client disconnects."""
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
        """Checks the limits, and returns the cost; without variables, its minimum. Raises `OperationError`."""
        measures = measure(self._schema, document, definition, variables, counts=counts, unknown=1)
        if found := excesses(measures, self._limits):
            raise _limit_exceeded(found)
        return measures.cost

    def _cost(self, operation: Operation, variables: Mapping[str, Any]) -> int:
        """The cost with these variables, remembered by the sizes of their values. Raises `OperationError`."""
        key = operation.text, operation.name, *((name, _size(value)) for name, value in variables.items())
        cost = self._costs.get(key)
        if cost is None:
            try:
                cost = self._check(operation.document, operation.definition, operation.counts, dict(variables))
            except RecursionError:
                raise _too_deep("These variables are", "variables") from None
            if len(self._costs) >= _MAX_REMEMBERED:
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
                max_errors=MAX_ERRORS - 1,  # graphql-core adds one that says that there are more
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
            if len(self._documents) > _MAX_REMEMBERED:
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
                next((scope for field, scope in SCOPES.items() if field in fields[name_of(node)]), Scope.CONTENT),
            )
            for node in document.node.definitions
            if isinstance(node, OperationDefinitionNode)
        }

    def _parsed(self, text: str) -> _Parsed:
        """Parses a document, and checks its limits before its validation, which takes long for an excessive one."""
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
        """The response to each event; a live query is answered only if its result has changed."""
        last: bytes | None = None
        async for event in events:
            answer = await shared.to(event)
            if isinstance(event, LiveTick):
                if answer.encoded == last:
                    continue
                last = answer.encoded
            yield answer

    def _failure(self, error: Exception) -> OperationError:
        """The error that the client gets: an unexpected exception is logged, and its message is masked."""
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
    """A valid document."""

    node: DocumentNode
    operations: Mapping[str, Operation]
    """Operations by name; the empty name is that of an anonymous one."""


def check_role(operation: Operation, context: Context) -> None:
    """Raises `OperationError`."""
    required, role = operation.required_role, context.role
    if role is None or not (required.role is Role.READ or role.includes(required.role)):
        message = f"{required.field} needs the role {required.role}, and this client has {role or 'none'}."
        raise OperationError([GraphQLError(message, extensions={"code": FORBIDDEN, "needs": required.role})], FORBIDDEN)


def _size(value: object) -> tuple[int] | int | None:
    """The part of a variable's value that affects the cost: a number, or the length of a list."""
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
    """An error for each limit that is exceeded, with limit, value and maximum in its message and extensions."""
    errors = [
        GraphQLError(str(excess), extensions={"code": LIMIT_EXCEEDED, **excess.as_extensions()}) for excess in found
    ]
    return OperationError(errors, LIMIT_EXCEEDED)


async def _settled(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value
