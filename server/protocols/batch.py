"""Batches: several operations in one request, as a JSON array, each with a response of its own.

Apollo's BatchHttpLink, graphql-request and gql send them. A draft of GraphQL over HTTP describes them:
https://github.com/graphql/graphql-over-http, "Appendix C: Request Batching".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from graphql import GraphQLError, OperationType
from starlette.datastructures import Headers

from schema.encoding import encode_json
from schema.errors import DEADLINE_EXCEEDED
from schema.operation import OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease
from server.database.merlin_database import MerlinDatabase
from server.errors import RequestError
from server.header_lists import joined
from server.protocols.failures import is_cancelled
from server.protocols.service import Conditions, Service, conditions_of
from server.requests import BatchRequest, GraphQLRequest, parse_request

MAX_OPERATIONS = 10


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the operations of one batch have in common."""

    service: Service
    lease: Lease
    database: MerlinDatabase
    request: BatchRequest
    cost: str | None
    """The header X-Cost, which is meant for each operation."""
    conditions: Conditions
    until: float
    """The monotonic time after which no operation is begun."""


async def answer_batch(
    service: Service, request: BatchRequest, headers: Headers, lease: Lease, database: MerlinDatabase
) -> bytes:
    """The responses, as a JSON array in the order of the operations, which are executed one after the other.

    Raises `RequestError` where the batch is refused as a whole.
    """
    if not 1 <= len(request.members) <= MAX_OPERATIONS:
        raise RequestError(f"Send 1 to {MAX_OPERATIONS} operations in an array, not {len(request.members)}.")
    if "x-idempotency-key" in headers:
        raise RequestError("X-Idempotency-Key: in an array, give each mutation its own as extensions.idempotencyKey.")
    cost = joined(headers, "x-cost")
    # An ETag would have to name all responses, so there is none, and none is compared.
    conditions = conditions_of(joined(headers, "cache-control"), None)
    deadline = service.engine.deadline
    until = float("inf") if deadline is None else monotonic() + deadline
    batch = _Batch(service, lease, database, request, cost, conditions, until)
    return b"[%b]" % b",".join([await _response(batch, member) for member in request.members])


async def _response(batch: _Batch, member: object) -> bytes:
    """The response to one operation; whatever goes wrong is an error of this one only."""
    errors: Sequence[Mapping[str, Any]]
    try:
        return await _executed(batch, _parsed(batch, member))
    except (RequestError, AuthenticationError) as error:
        batch.service.telemetry.refused(error.code)
        errors = [{"message": str(error), "extensions": {"code": error.code}}]
    except (Exception, asyncio.CancelledError) as unknown:
        if is_cancelled(unknown):
            raise
        errors = batch.service.failed(unknown).errors
    return encode_json({"errors": errors})


def _parsed(batch: _Batch, member: object) -> GraphQLRequest:
    """Raises `RequestError`."""
    given = parse_request(member).with_cost_wanted(batch.cost)
    return given if batch.request.read_after is None else replace(given, read_after=batch.request.read_after)


async def _executed(batch: _Batch, given: GraphQLRequest) -> bytes:
    """Raises `RequestError`, `AuthenticationError`, `OperationError`, and unexpected exceptions."""
    if monotonic() > batch.until:
        message = "The operations before this one took as long as a request may take: send it again."
        raise OperationError([GraphQLError(message)], DEADLINE_EXCEEDED)
    operation = await batch.service.prepare(given)
    if operation.type is OperationType.SUBSCRIPTION:
        raise RequestError("A subscription is not answered in an array: it needs a websocket or an event stream.", 406)
    if operation.type is OperationType.QUERY:
        reply = await batch.service.query(operation, given, batch.conditions, batch.lease, batch.database)
        return reply.body
    async with aclosing(batch.service.stream(operation, given, batch.database, batch.lease)) as answers:
        return (await anext(answers)).encoded
