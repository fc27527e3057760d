"""A valid operation of a client, its response, and the error that refuses it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLFormattedError,
    OperationDefinitionNode,
    OperationType,
)

from schema.budget import SHORT, SHORT_INPUT, Budget, BudgetExceededError
from schema.context import Context
from schema.encoding import encode_json
from schema.errors import (
    BAD_USER_INPUT,
    FORBIDDEN,
    LIMIT_EXCEEDED,
    format_errors,
    translate,
)
from schema.limits import Counts
from schema.roles import RequiredRole, Role
from server.database.merlin_database import State
from server.database.row_index import BUILT_AT_ONCE

T = TypeVar("T")

_SIZE = 6
"""Bytes of memory that a response takes for each byte that is sent of it, about."""


class GraphQLResponse:
    """The result of an operation, encoded as JSON once for all clients that receive it."""

    def __init__(
        self,
        result: ExecutionResult,
        deprecations: Sequence[str] = (),
        *,
        reveal: bool = True,
        cost: int = 0,
        position: str | None = None,
        replicas: Mapping[str, int] | None = None,
        state: State | None = None,
        is_deferred: bool = False,
    ) -> None:
        """`position`: the state of the copy after a mutation. `replicas`: where too few have confirmed it.

        `state`: what a query's result belongs to, as a whole. `is_deferred`: whether the client could also take it in
        parts, so that it has to be told that this is the last one.
        """
        self.cost = cost
        self.state = state
        self.errors: list[GraphQLFormattedError] = []
        if result.errors:
            self.errors = format_errors(result.errors, translated=partial(translate, reveal=reveal))
        self.extensions: dict[str, Any] = {"deprecations": list(deprecations)} if deprecations else {}
        if position is not None:
            self.extensions["position"] = position
        if replicas is not None:
            self.extensions["replicas"] = replicas
        if is_deferred:
            self.extensions["is_final"] = True  # Relay's name: it waits for the deferred fields otherwise
        parts: dict[str, Any] = {"data": result.data}
        if self.errors:
            parts["errors"] = self.errors
        if self.extensions:
            parts["extensions"] = self.extensions
        self.encoded = encode_json(parts)

    @property
    def data(self) -> dict[str, Any] | None:
        """Decoded each time: parts of it may have been kept as bytes."""
        data: dict[str, Any] | None = json.loads(self.encoded)["data"]
        return data

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return _SIZE * len(self.encoded)

    def with_extension(self, name: str, value: object) -> GraphQLResponse:
        """The response with one more of its extensions, for one of the clients that receive it."""
        told = copy(self)
        told.extensions = {**self.extensions, name: value}
        last = b"%b:%b}}" % (encode_json(name), encode_json(value))  # they are the last part, and may be left out
        told.encoded = (
            self.encoded[:-2] + b"," + last if self.extensions else self.encoded[:-1] + b',"extensions":{' + last
        )
        return told

    @classmethod
    def given_before(cls, encoded: bytes) -> GraphQLResponse:
        """A response that was encoded before, to be sent once more."""
        parts = json.loads(encoded)
        response = cls(ExecutionResult(parts["data"], None))
        response.errors, response.extensions = parts.get("errors", []), parts.get("extensions", {})
        response.encoded = encoded
        return response


class OperationError(Exception):
    """The operation was refused, and nothing was executed."""

    def __init__(self, errors: Sequence[GraphQLError], code: str = BAD_USER_INPUT) -> None:
        super().__init__(errors[0].message)
        self.errors = format_errors(errors, code)
        self.code = str(self.errors[0]["extensions"]["code"])


class Scope(StrEnum):
    """What the response to an operation depends on, besides its variables and the role; each on those above it, too."""

    CONTENT = "content"
    """The records and annotations of the database."""
    REVISION = "revision"
    SERVER = "server"
    """What the server itself has noticed; at another one, or later, it may be something else."""
    CLOCK = "clock"
    CLIENT = "client"
    """Who asks, and what the client has asked before."""

    @property
    def is_stored(self) -> bool:
        """Whether the response depends only on what the database stores."""
        return self in (Scope.CONTENT, Scope.REVISION)


@dataclass(frozen=True, slots=True)
class Operation:
    """A valid operation of a document, not yet given its variables."""

    text: str
    document: DocumentNode
    definition: OperationDefinitionNode
    type: OperationType
    name: str | None
    counts: Counts
    deprecations: Sequence[str]
    """A sentence for each deprecated element of its document, with what to use instead."""
    required_role: RequiredRole
    scope: Scope
    reads_files: bool
    """Whether it asks for something that stands in the workspaces of runs."""
    finds_nodes: bool
    """Whether it asks for nodes, which may be tasks if its variables name some."""
    searches: bool
    """Whether it may filter or order a list."""
    is_deferred: bool = False
    """Whether @defer or @stream stood in its document: the response says that it is the whole."""

    def is_small(self, values: int) -> bool:
        """Whether little is to be read before the execution. `values`: of its variables."""
        return self.counts.tokens + values <= SHORT_INPUT

    def is_short(self, cost: int, values: int, records: int) -> bool:
        """Whether its compiled function takes less than 20 ms. `records`: how many the copy has.

        A search of many records may have to build an index first, or an order.
        """
        return cost <= SHORT and self.is_small(values) and not (self.searches and records > BUILT_AT_ONCE)


def check_role(operation: Operation, context: Context) -> None:
    """Raises `OperationError`."""
    required, role = operation.required_role, context.role
    if role is None or not (required.role is Role.READ or role.includes(required.role)):
        message = f"{required.field} needs the role {required.role}, and this client has {role or 'none'}."
        raise OperationError([GraphQLError(message, extensions={"code": FORBIDDEN, "needs": required.role})], FORBIDDEN)


async def within_budget(work: Awaitable[T]) -> T:
    """Raises `OperationError` where it spends more than it may."""
    try:
        return await work
    except BudgetExceededError as error:
        raise _exceeded(error.budget) from None


def _exceeded(budget: Budget) -> OperationError:
    """The error of an operation that has spent more than it may."""
    told = {"code": LIMIT_EXCEEDED, "limit": "cost", "value": budget.spent, "maximum": budget.limit}
    message = (
        f"The operation spent more than {budget.limit} points, the most of them on `{budget.costliest}`: "
        "ask for less there."
    )
    return OperationError([GraphQLError(message, extensions={**told, "field": budget.costliest})], LIMIT_EXCEEDED)
