"""Workspaces that an operation asks for and that nobody has read yet: they are read, and it is executed again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from schema.allowance import charge
from schema.context import Context
from schema.documents import Variables, text_of
from schema.operation import Operation
from schema.scopes import names_task

T = TypeVar("T")


def reads_files(operation: Operation, variables: Variables) -> bool:
    """Whether the response may show what stands in the workspaces of runs."""
    return operation.reads_files or (operation.finds_nodes and names_task(text_of(variables.given)))


async def after_reading(
    context: Context,
    execute: Callable[[Context, int], Awaitable[T]],
    cost: int = 0,
    measure: Callable[[], int] = int,
) -> T:
    """What the operation gives once the files that its resolvers asked for were read, or took too long.

    So resolvers stay plain functions over what is known, all files of a page are read side by side, and the response
    belongs to one revision. `cost`: what was charged for it. Once files are read, it may show more, and cost more:
    `measure` says how much. Raises `OperationError`, and `GraphQLError` if the client can't pay that.
    """
    context = replace(context, unread=set())
    first = await execute(context, cost)
    if not context.unread:
        return first
    await context.database.observations.reader.read(context.unread)
    now = max(cost, measure())
    if now > cost:
        charge(context.allowance, now - cost)
    return await execute(replace(context, unread=None), now)
