"""The engine: parses, checks and executes operations; subscribers to the same operation share its execution."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Hashable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import strawberry
from graphql import (
    ExecutionResult,
    Executor,
    GraphQLError,
    OperationType,
    create_source_event_stream,
    execute_root_selection_set,
    execute_subscription_event,
)

from schema.allowance import Toll, charge
from schema.budget import (
    SHORT_FOR_CORE,
    UNMETERED,
    Budget,
)
from schema.changes import LiveTick, SubscriptionEvent
from schema.compiler.compiler import Compiler, ExecutionCounts
from schema.context import Context
from schema.core import core_of
from schema.deadlines import within
from schema.dependences import NOTES
from schema.documents import Documents, Variables, count_values, text_of
from schema.entity_pieces import ENTITY_PIECES
from schema.errors import DEADLINE_EXCEEDED, UNKNOWN_OUTCOME, translate
from schema.executor import executor_of
from schema.limits import DEFAULTS, Limits
from schema.mutation_executor import execute_mutation
from schema.operation import GraphQLResponse, Operation, OperationError, Scope, check_role, within_budget
from schema.scopes import with_filters
from schema.sharing import SharedAnswers
from schema.unread import after_reading, reads_files
from server.database.errors import OverdueError
from server.database.merlin_database import State
from server.database.recent import Recent
from server.database.replicas import confirmations
from server.database.slices import in_slices
from server.database.steps import Steps
from server.database.watches import Dependence

GRACE_SECONDS = 3.0
"""How long after its deadline a mutation may find out what of it was done."""
MAX_SHARED_BYTES = 2**24
"""Of responses that subscribers to the same operation share."""

T = TypeVar("T")


class Engine:
    """Executes the operations of one schema, within its limits."""

    def __init__(
        self,
        schema: strawberry.Schema,
        limits: Limits = DEFAULTS,
        *,
        introspection: bool = True,
        deadline: float | None = None,
        compiled: bool = True,
        watches_changes: bool = True,
    ) -> None:
        """Without `introspection` no message reveals the schema or the address of the database.

        `deadline`: seconds that a query or a mutation may take. `compiled`: whether to compile operations.
        `watches_changes`: whether a live query is executed again only after a change that can touch its answer.
        """
        self._schema = core_of(schema)
        self._compiler = Compiler(schema, ENTITY_PIECES, NOTES) if compiled else None
        self._reveal = introspection
        self._limits = limits
        self._documents = Documents(self._schema, limits, introspection=introspection)
        self._deadline = deadline
        self._watches_changes = watches_changes
        self._finishing: set[asyncio.Future[ExecutionResult]] = set()
        self._live_steps = Steps(rests=True)
        self._slices = Steps()
        self._shared_answers: Recent[Hashable, GraphQLResponse] = Recent(MAX_SHARED_BYTES, max_share=2)
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
    def max_cost(self) -> int:
        """The cost that one operation may have."""
        return self._limits.cost

    @property
    def execution_counts(self) -> ExecutionCounts:
        """How many operations were compiled, and how many graphql-core executed."""
        return ExecutionCounts() if self._compiler is None else self._compiler.execution_counts

    @property
    def cache_sizes(self) -> Mapping[str, int]:
        """Bytes, about, that each cache takes."""
        functions = 0 if self._compiler is None else self._compiler.size
        return {"documents": self._documents.size, "functions": functions, "shared": self._shared_answers.size}

    def is_short(self, text: str) -> bool:
        """Whether `parse` takes some milliseconds at most. Else it is to be called in slices."""
        return self._documents.is_short(text)

    def parse(self, text: str, name: str | None = None) -> Operation:
        """Parses and validates a document; returns its operation of that name, or its only one.

        Raises `OperationError`, whatever goes wrong.
        """
        try:
            return self._documents.operation(text, name)
        except Exception as error:  # noqa: BLE001 - as below
            raise self._failure(error) from None

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
        given, cost = await self._measured(operation, variables, context)
        match operation.type:
            case OperationType.QUERY:
                yield await self._queried(operation, given, context, cost)
            case OperationType.MUTATION:
                charge(context.allowance, cost)
                with confirmations() as confirmed:
                    result = await self._changed(operation, given, context)
                position, replicas = str(context.database.position), confirmed.as_extension()
                yield self._response(operation, result, cost, position, replicas)
            case OperationType.SUBSCRIPTION:
                toll = Toll(context.allowance, cost)
                observes = not with_filters(operation.scope, text_of(variables)).is_stored
                shared = self._shared_responses(operation, given, context, observes=observes)
                of_source = replace(context, toll=toll, observes=observes, watch=shared.watch)
                executor = executor_of(self._schema, operation, variables, of_source, reveal=self._reveal)
                try:
                    async with (
                        shared.subscribed(),
                        aclosing(await self._events(executor)) as events,
                        aclosing(self._responses(events, shared, toll)) as answers,
                    ):
                        async for answer in answers:
                            yield answer
                finally:
                    toll.give_back()

    async def query(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> GraphQLResponse:
        """The response to a query. Raises `OperationError`, whatever goes wrong."""
        try:
            check_role(operation, context)
            given, cost = await self._measured(operation, variables, context)
            return await self._queried(operation, given, context, cost)
        except Exception as error:  # noqa: BLE001 - as in `execute`
            raise self._failure(error) from None

    def at_once(
        self, operation: Operation, given: Mapping[str, Any] | None, context: Context
    ) -> GraphQLResponse | None:
        """The response to a short query that succeeds, without waiting for anything; None if it is one for `query`.

        Raises `OperationError` and `GraphQLError`, also for `query`: nothing was charged.
        """
        check_role(operation, context)
        size = count_values(given) if given else 0
        if operation.reads_files or operation.finds_nodes or not operation.is_small(size):
            return None
        variables = self._documents.variables(operation, given, size)
        cost = self._cost(operation, variables, context)
        charge(context.allowance, cost)
        response = self._response_at_once(operation, variables, context, cost)
        if response is None:
            context.allowance.give_back(max(cost, 1))
        return response

    async def _measured(
        self, operation: Operation, variables: Mapping[str, Any] | None, context: Context
    ) -> tuple[Variables, int]:
        """The coerced variables and the cost. Raises `OperationError`."""
        size = count_values(variables) if variables and operation.type is not OperationType.MUTATION else 0

        def measure() -> tuple[Variables, int]:
            given = self._documents.variables(operation, variables, size)
            return given, self._cost(operation, given, context)

        if operation.is_small(size):
            return measure()
        return await in_slices(measure, self._slices.turn)

    async def _queried(
        self, operation: Operation, variables: Variables, context: Context, cost: int
    ) -> GraphQLResponse:
        charge(context.allowance, cost)
        if reads_files(operation, variables):
            answer = partial(self._response_to_query, operation, variables)
            measure = partial(self._cost, operation, variables, context)
            return await self._within_deadline(after_reading(context, answer, cost, measure))
        return await self._response_to_query(operation, variables, context, cost)

    async def _response_to_query(
        self, operation: Operation, variables: Variables, context: Context, cost: int
    ) -> GraphQLResponse:
        if (response := self._response_at_once(operation, variables, context, cost)) is not None:
            return response
        result, of = await self._within_deadline(self._executed(operation, variables, context, cost))
        return self._response(operation, result, cost, state=of)

    def _response_at_once(
        self, operation: Operation, variables: Variables, context: Context, cost: int
    ) -> GraphQLResponse | None:
        state = context.database.state
        result = self._at_once(operation, variables, context, cost)
        return None if result is None else self._response(operation, result, cost, state=state)

    def _at_once(
        self, operation: Operation, variables: Variables, context: Context, cost: int, event: Any = None
    ) -> ExecutionResult | None:
        """The result of a compiled operation that is short, and succeeds; else None, and it is for `_executed`."""
        is_short = operation.is_short(cost, variables.size, context.database.sizes.records)
        data = self._data(operation, variables, context, event) if is_short else None
        return None if data is None else ExecutionResult(data, None)

    async def _executed(
        self, operation: Operation, variables: Variables, context: Context, cost: int, event: Any = None
    ) -> tuple[ExecutionResult, State | None]:
        """The result, and the state of the copy that it belongs to; None if that changed meanwhile.

        An operation that may take long is executed in slices, and the copy does not change in between. Raises
        `OperationError` if it spends more than an operation may.
        """
        is_short = operation.is_short(cost, variables.size, context.database.sizes.records)
        if is_short and cost <= SHORT_FOR_CORE:
            state = context.database.state
            result = self._by_core(operation, variables, context, event)
        else:
            budget = Budget(self._limits.cost, counts_fields=cost > UNMETERED)
            of_both = operation, variables, replace(context, budget=budget), event

            def execute() -> ExecutionResult | Awaitable[ExecutionResult]:
                if is_short:  # the compiled function has failed already
                    return self._by_core(*of_both)
                return self._result(*of_both)

            async with context.database.read_model.long_reads.reading(context.who):
                state = context.database.state
                result = await within_budget(in_slices(execute, self._slices.turn))
            if budget.spent > cost:  # by introspection, of which nothing is known before
                context.allowance.take(budget.spent - cost)
        if not isinstance(result, Awaitable):
            return result, state
        settled = await within_budget(result)
        return settled, state if context.database.state == state else None

    def _cost(self, operation: Operation, variables: Variables, context: Context) -> int:
        """0 if the variables are invalid. Raises `OperationError`."""
        if variables.coerced is None:
            return 0
        return self._documents.cost(operation, variables.coerced.coerced, context.database.sizes)

    def _data(
        self, operation: Operation, variables: Variables, context: Context, event: Any = None
    ) -> dict[str, Any] | None:
        """The result of the compiled function; None if there is none, or it gave up."""
        if self._compiler is None or variables.coerced is None:
            return None
        return self._compiler.answer(
            operation.text,
            operation.document,
            operation.definition,
            variables.coerced,
            context,
            event,
            is_metered=context.budget is not None and context.budget.counts_fields,
            is_traced=context.dependence is not None,
        )

    def _result(
        self, operation: Operation, variables: Variables, context: Context, event: Any = None
    ) -> ExecutionResult | Awaitable[ExecutionResult]:
        """The result of the compiled function, else graphql-core's on the same revision: nothing is awaited between."""
        data = self._data(operation, variables, context, event)
        if data is not None:
            return ExecutionResult(data, None)
        if context.budget is not None:
            context.budget.begin_again()
        return self._by_core(operation, variables, context, event)

    def _by_core(
        self, operation: Operation, variables: Variables, context: Context, event: Any = None
    ) -> ExecutionResult | Awaitable[ExecutionResult]:
        executor = executor_of(self._schema, operation, variables.given, context, event, reveal=self._reveal)
        if context.dependence is not None:
            context.dependence.is_known = False
        is_event = operation.type is OperationType.SUBSCRIPTION
        return (execute_subscription_event if is_event else execute_root_selection_set)(executor)

    async def _within_deadline(self, result: Awaitable[T]) -> T:
        message = f"This took longer than {self._deadline:g} s: ask for less." if self._deadline else ""
        late = OperationError([GraphQLError(message)], DEADLINE_EXCEEDED)
        return await within(asyncio.timeout(self._deadline), result, late)

    async def _changed(self, operation: Operation, variables: Variables, context: Context) -> ExecutionResult:
        """The result of a mutation, whose fields keep the deadline themselves: they know what was sent by then.

        Raises `OperationError` where it executed nothing before the deadline.
        """
        patience, context = None, replace(context, done=[])
        if self._deadline is not None:
            patience = self._deadline + GRACE_SECONDS
            context = replace(context, deadline=asyncio.get_running_loop().time() + self._deadline)
        answered = partial(self._data, operation, variables, context)
        begun = execute_mutation(self._schema, operation, variables, context, answered, reveal=self._reveal)
        executing = self._shielded(begun)
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
        state: State | None = None,
    ) -> GraphQLResponse:
        return GraphQLResponse(
            result,
            operation.deprecations,
            reveal=self._reveal,
            cost=cost,
            position=position,
            replicas=replicas,
            state=state,
            is_deferred=operation.is_deferred,
        )

    def _shared_responses(
        self, operation: Operation, variables: Variables, context: Context, *, observes: bool
    ) -> SharedAnswers[GraphQLResponse]:
        async def answer(event: SubscriptionEvent, dependence: Dependence) -> GraphQLResponse:
            if reads_files(operation, variables):
                return await after_reading(context, partial(answer_in, event))
            return await answer_in(event, replace(context, dependence=dependence) if dependence.is_known else context)

        async def answer_in(event: SubscriptionEvent, context: Context, _cost: int = 0) -> GraphQLResponse:
            # A new executor for each event: graphql-core 3.3.2 copies a shared one for each event, and the copies keep
            # the results of all events as long as the subscription lasts.
            try:
                now = self._cost(operation, variables, context)
            except OperationError:  # the database has grown: it may spend what an operation may
                now = UNMETERED + 1
            at_once = self._at_once(operation, variables, context, now, event)
            if at_once is not None:
                return self._response(operation, at_once, now)
            result, _ = await self._executed(operation, variables, context, now, event)
            return self._response(operation, result, now)

        given = text_of(variables.given)
        key = operation.text, operation.name, given, context, context.who if operation.scope is Scope.CLIENT else None
        shared = self._shared.get(key)
        if shared is None:
            watches = None if observes or not self._watches_changes else context.database.watches
            shared = self._shared[key] = SharedAnswers(
                answer, self._live_steps, self._shared_answers, attrgetter("size"), watches
            )
        return shared

    async def _shielded(self, result: ExecutionResult | Awaitable[ExecutionResult]) -> ExecutionResult:
        """Finishes a mutation that has begun, even if its client disconnects."""
        task = asyncio.ensure_future(_settled(result))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return await asyncio.shield(task)

    async def _events(self, executor: Executor[Any]) -> AsyncGenerator[SubscriptionEvent]:
        source = await _settled(create_source_event_stream(executor))
        if isinstance(source, ExecutionResult):
            raise OperationError([translate(error, reveal=self._reveal) for error in source.errors or []])
        return cast("AsyncGenerator[SubscriptionEvent]", source)

    async def _responses(
        self, events: AsyncIterable[SubscriptionEvent], shared: SharedAnswers[GraphQLResponse], toll: Toll
    ) -> AsyncGenerator[GraphQLResponse]:
        """The response to each event; a live query is answered only if its result has changed."""
        last: bytes | None = None
        async for event in events:
            answer = await shared.to(event, toll.use)
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


async def _settled(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value
