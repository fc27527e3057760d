"""Unexpected exceptions: they are logged, and the client is told that something failed, but not what it says."""

from __future__ import annotations

import asyncio

from graphql import GraphQLError

from schema.errors import INTERNAL, translate
from schema.operation import OperationError


class GoneError(Exception):
    """The client is. Raised where something is sent to it or received, and by nothing else."""


def failed(error: BaseException, *, reveal: bool = True) -> OperationError:
    """As the answer to an operation: the id that its client reads stands in the log, with the traceback.

    What is meant for clients is told as it is.
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


def is_told_to_end(error: BaseException) -> bool:
    """Whether it is this task that is cancelled, and not something that it waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
