"""Workspaces that an operation asks for and that nobody has read yet: they are read, and it is executed again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from schema.context import Context

T = TypeVar("T")


async def after_reading(context: Context, execute: Callable[[Context], Awaitable[T]]) -> T:
    """What the operation gives once the files that its resolvers asked for were read, or took too long.

    So resolvers stay plain functions over what is known, all files of a page are read side by side, and the response
    belongs to one revision.
    """
    context = replace(context, unread=set())
    first = await execute(context)
    if not context.unread:
        return first
    await context.database.observations.reader.read(context.unread)
    return await execute(replace(context, unread=None))
