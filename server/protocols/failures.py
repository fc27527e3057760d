"""Unexpected exceptions: they are logged, and the client is told that something failed, but not what it says."""

from __future__ import annotations

import asyncio

from graphql import GraphQLError

from schema.errors import INTERNAL, translate
from schema.operation import OperationError


class GoneError(Exception):
    """The client has disconnected. Raised only by sending to it and by receiving from it."""


def failed(error: BaseException, *, reveal: bool = True) -> OperationError:
    """The error that the client of an operation gets.

    Errors made for clients stay as they are. Any other is logged with its traceback, under an id that the client sees.
    """
    if isinstance(error, OperationError):
        return error
    if isinstance(error, GraphQLError):
        return OperationError([translate(error, reveal=reveal)])
    cause = error
    if not isinstance(cause, Exception):
        cause = RuntimeError(f"{type(error).__name__} in an operation")
        cause.__cause__ = error
    return OperationError([translate(GraphQLError("", original_error=cause), reveal=reveal)], INTERNAL)


def is_cancelled(error: BaseException) -> bool:
    """Whether this task itself is cancelled, and not only something that it awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
