"""Asks as the server does, without a server."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.operation import OperationError
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase

OPERATIONS = Engine(make_schema())


@dataclass(frozen=True)
class Failure:
    message: str
    extensions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    data: Any
    errors: list[Failure]


async def execute(
    database: MerlinDatabase, query: str, variables: dict[str, Any] | None = None, operations: Engine = OPERATIONS
) -> Result:
    """What a client is told, the first of it."""
    try:
        operation = operations.parse(query)
        async with aclosing(
            operations.execute(operation, variables, Context(database, "1.2.3", Role.ADMIN))
        ) as answers:
            answer = await anext(answers)
    except OperationError as error:
        return Result(None, _failures(error.errors))
    return Result(answer.data, _failures(answer.errors))


async def ask(database: MerlinDatabase, query: str, **variables: Any) -> Any:
    """The data of an answer without errors."""
    result = await execute(database, query, variables)
    assert result.errors == []
    return result.data


def _failures(errors: list[Any]) -> list[Failure]:
    return [Failure(error["message"], error.get("extensions", {})) for error in errors]
