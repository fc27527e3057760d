"""The service that all protocols share: parses a document, looks for a cached response, executes the operation, and
records its outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Any, NamedTuple

from graphql import GraphQLError, OperationType

from schema.allowance import Allowance, charge
from schema.context import Context
from schema.engine import Engine
from schema.errors import FORBIDDEN, LIMIT_EXCEEDED
from schema.operation import GraphQLResponse, Operation, OperationError, check_role
from schema.scalars import rfc3339
from server import __version__
from server.auth.access_control import AccessControl
from server.auth.identity import Identity
from server.auth.lease import Lease
from server.auth.visitor import Visitor
from server.database.idempotency import Claim
from server.database.merlin_database import MerlinDatabase
from server.database.slices import in_slices
from server.database.steps import Steps
from server.errors import RequestError
from server.header_lists import directives
from server.observability.telemetry import OperationOutcome, Telemetry
from server.protocols.failures import failed
from server.protocols.idempotency import KeyedMutation, execute_once
from server.protocols.persisted_documents import PersistedDocuments
from server.protocols.response_cache import CachedResponse, CacheKey, ResponseCache, cache_key_of
from server.protocols.statuses import HttpStatuses
from server.requests import GraphQLRequest


class Conditions(NamedTuple):
    """What a request says about responses that are there already (RFC 9110 and 9111)."""

    if_none_match: str | None
    no_cache: bool
    """The client insists on an execution."""


def conditions_of(cache_control: str | None, if_none_match: str | None) -> Conditions:
    no_cache = "no-cache" in directives(cache_control)
    return Conditions(None if no_cache else if_none_match, no_cache)


class Question(NamedTuple):
    """A query with all that its response depends on."""

    operation: Operation
    variables: Mapping[str, Any] | None
    cache_key: CacheKey | None
    """None where its response can't be cached."""
    conditions: Conditions
    database: MerlinDatabase
    wants_cost: bool = False
    """The response is to say what it costs."""


@dataclass(frozen=True, slots=True)
class Service:
    """What every protocol needs to answer an operation."""

    engine: Engine
    documents: PersistedDocuments
    access_control: AccessControl
    telemetry: Telemetry
    response_cache: ResponseCache
    reading: Steps = field(default_factory=Steps)
    """The slices in which long bodies and documents are read."""
    statuses: HttpStatuses = HttpStatuses.COMPATIBLE
    finishing: set[asyncio.Future[GraphQLResponse]] = field(default_factory=set)
    """Mutations with an idempotency key."""
    _last_context: list[Context | None] = field(default_factory=lambda: [None])

    def context(self, database: MerlinDatabase, identity: Identity) -> Context:
        """Reused from the previous request if that had the same role, name and database."""
        last = self._last_context[0]
        if last is None or last.role is not identity.role or last.who != identity.name or last.database is not database:
            last = self._last_context[0] = self._new_context(database, identity)
        return last

    def _new_context(self, database: MerlinDatabase, identity: Identity) -> Context:
        allowance = self.access_control.allowance(identity)
        return Context(database, __version__, identity.role, identity.name, self.engine.reveals, allowance=allowance)

    @contextmanager
    def connection(self, identity: Identity, protocol: str) -> Iterator[None]:
        """Counts a websocket or a stream, as long as it is open. Raises `RequestError` for one too many."""
        open_, client = self.access_control.connections, identity.name
        if not open_.enter(client):
            raise RequestError(
                f"This client has {open_.maximum} websockets and streams open, and may have no more: close one.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        try:
            with self.telemetry.metrics.connection(protocol):
                yield
        finally:
            open_.leave(client)

    def failed(self, error: BaseException) -> OperationError:
        """The error that a client gets for an exception; an unexpected one is logged."""
        return failed(error, reveal=self.engine.reveals)

    async def prepare(self, request: GraphQLRequest) -> Operation:
        """Finds and parses the document of a request. Raises `OperationError`, whatever goes wrong."""
        try:
            with self.telemetry.tracing.step("graphql.read", {}):
                if request.query is None or self.engine.is_short(request.query):
                    return self.parse(request)
                return await in_slices(partial(self.parse, request), self.reading.turn)
        except Exception as unknown:  # noqa: BLE001 - the client waits for a response
            error = self.failed(unknown)
            self.telemetry.refused(error.code)
            raise error from None

    def parse(self, request: GraphQLRequest) -> Operation:
        """Raises `OperationError`, and what nobody foresaw."""
        text = self.documents.text(request.query, request.document_id)
        operation = self.engine.parse(text, request.operation_name)
        self.documents.register(request.query, request.document_id)
        return operation

    async def query(
        self,
        operation: Operation,
        request: GraphQLRequest,
        conditions: Conditions,
        lease: Lease,
        database: MerlinDatabase,
    ) -> CachedResponse:
        """The response to a query. Raises `OperationError`, `AuthenticationError` and `BackendError`."""
        if request.read_after is not None:
            await database.catch_up(request.read_after)
        identity = lease.identity()
        key = None if request.wants_cost else cache_key_of(operation, request.variables, identity.role)
        question = Question(operation, request.variables, key, conditions, database, request.wants_cost)
        return await self.answer(question, self.context(database, identity), lambda: lease.visitor, identity)

    async def answer(
        self, question: Question, context: Context, visitor: Callable[[], Visitor], identity: Identity
    ) -> CachedResponse:
        """The response to a query: a cached one, or that of an execution. Raises `OperationError`."""
        began, outcome = perf_counter(), OperationOutcome()
        try:
            cached = self._cached(question, context.allowance)
            if cached is not None:
                outcome.cost, outcome.is_kept = cached.cost, True
                return cached
            with self.telemetry.step(question.operation):
                response = await self.engine.query(question.operation, question.variables, context)
                outcome.add_response(response)
                if question.wants_cost:
                    response = self._with_cost(response, context.allowance)
                return self._cache(question, response)
        except Exception as unknown:  # noqa: BLE001 - the client waits for a response
            error = self._refused(unknown, outcome, question.operation, visitor, identity)
            raise error from None
        finally:
            seconds = perf_counter() - began
            self.telemetry.note(question.operation, "http", identity, outcome, seconds)

    def at_once(self, question: Question, identity: Identity) -> CachedResponse | None:
        """The response to a query that needs no waiting, and succeeds; None if it is one for `answer`.

        Raises `OperationError` and `GraphQLError`, also for `answer`: nothing was charged.
        """
        began, outcome = perf_counter(), OperationOutcome()
        context = self.context(question.database, identity)
        response = self._cached(question, context.allowance)
        if response is not None:
            outcome.cost, outcome.is_kept = response.cost, True
        else:
            executed = self.engine.at_once(question.operation, question.variables, context)
            if executed is None:
                return None
            outcome.add_response(executed)
            response = self._cache(question, executed)
        seconds = perf_counter() - began
        self.telemetry.note_known(question.operation, identity, outcome, response.status, seconds)
        return response

    def _cached(self, question: Question, allowance: Allowance) -> CachedResponse | None:
        """A response that costs one point. A client that has none is refused as for an execution."""
        if question.cache_key is None or question.conditions.no_cache:
            return None
        known = question.conditions.if_none_match
        response = self.response_cache.find(question.cache_key, question.database.state, known)
        return None if response is None or allowance.take(1) else response

    def _cache(self, question: Question, response: GraphQLResponse) -> CachedResponse:
        """Errors are not cached, nor what a change during the execution may have made a mixture."""
        if question.cache_key is None or response.errors or response.state is None:
            return CachedResponse(200, response.encoded, None, response.cost, bool(response.errors))
        known = question.conditions.if_none_match
        return self.response_cache.put(question.cache_key, response.state, response.encoded, response.cost, known)

    def _refused(
        self,
        unknown: Exception,
        outcome: OperationOutcome,
        operation: Operation,
        visitor: Callable[[], Visitor],
        identity: Identity,
    ) -> OperationError:
        """The error that the client gets for an exception of an operation, noted and logged."""
        error = self.failed(unknown)
        outcome.add_errors(error.errors)
        if error.code == FORBIDDEN:
            what = f"{operation.type.value} {operation.name or 'without a name'}"
            self.access_control.security_log.forbidden(visitor(), identity, what)
        return error

    async def stream(
        self,
        operation: Operation,
        request: GraphQLRequest,
        database: MerlinDatabase,
        lease: Lease,
    ) -> AsyncGenerator[GraphQLResponse]:
        """Executes an operation: one response to a query or a mutation, one for each event of a subscription.

        Raises `AuthenticationError`, and `OperationError` for whatever else goes wrong.
        """
        identity = lease.identity()
        context = self.context(database, identity)
        with self.telemetry.operation(operation, lease.visitor.protocol, identity) as outcome:
            try:
                if request.read_after is not None:
                    await database.catch_up(request.read_after)
                async with aclosing(self._executed(operation, request, database, context)) as answers:
                    async for answer in answers:
                        outcome.add_response(answer)
                        _ = answer.encoded  # an encoding error belongs to the operation
                        yield self._with_cost(answer, context.allowance) if request.wants_cost else answer
            except Exception as unknown:  # noqa: BLE001 - the client waits for an end
                raise self._refused(unknown, outcome, operation, lambda: lease.visitor, identity) from None

    def _with_cost(self, answer: GraphQLResponse, allowance: Allowance) -> GraphQLResponse:
        told = {
            "estimated": answer.cost,
            "limit": self.engine.max_cost,
            "remaining": allowance.remaining,
            "resetAt": rfc3339(allowance.reset_at),
        }
        return answer.with_extension("cost", told)

    @contextmanager
    def _subscription(self, context: Context) -> Iterator[None]:
        """Counts a subscription as long as it runs. Raises `OperationError` for one too many."""
        running, client = self.access_control.subscriptions, context.who or ""
        if not running.enter(client):
            message = f"This client runs {running.maximum} subscriptions, and may run no more: complete one."
            told = {"limit": "subscriptions", "value": int(running.maximum) + 1, "maximum": running.maximum}
            error = GraphQLError(message, extensions={"code": LIMIT_EXCEEDED, **told})
            raise OperationError([error], LIMIT_EXCEEDED)
        try:
            yield
        finally:
            running.leave(client)

    async def _executed(
        self, operation: Operation, request: GraphQLRequest, database: MerlinDatabase, context: Context
    ) -> AsyncGenerator[GraphQLResponse]:
        """Raises `OperationError`, and `BackendError` for a mutation with an idempotency key."""
        if operation.type is OperationType.MUTATION and request.idempotency_key is not None:
            yield await self._once(operation, request, request.idempotency_key, database, context)
            return
        is_subscription = operation.type is OperationType.SUBSCRIPTION
        with self._subscription(context) if is_subscription else nullcontext():
            async with aclosing(self.engine.execute(operation, request.variables, context)) as answers:
                async for answer in answers:
                    yield answer

    async def _once(
        self, operation: Operation, request: GraphQLRequest, key: str, database: MerlinDatabase, context: Context
    ) -> GraphQLResponse:
        """Goes on to its end, even if the client disconnects: it may ask again."""
        check_role(operation, context)
        charge(context.allowance, 1)  # for looking up the first answer, which may be all that is done
        mutation = KeyedMutation.of(key, context.who or "", operation, request.variables)

        async def execute(claim: Claim) -> GraphQLResponse:
            answers = self.engine.execute(operation, request.variables, replace(context, claim=claim))
            async with aclosing(answers):
                return await anext(answers)

        executing = asyncio.ensure_future(execute_once(mutation, database.outcomes, self.engine.deadline, execute))
        self.finishing.add(executing)
        executing.add_done_callback(self.finishing.discard)
        executing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(executing)
