"""The errors that clients of GraphQL read: a code in `extensions`, and a message that says what to do.

Errors of the database layer are translated here, and nowhere else. An unexpected exception is logged, and the client
reads only the id that the log has for it. docs/errors.md lists the codes.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphql import GraphQLError, GraphQLFormattedError

from server.database.errors import (
    BackendError,
    DatabaseError,
    EntityNotFoundError,
    InvalidRequestError,
    OverdueError,
    ShuttingDownError,
    TooFarBehindError,
    UnknownOutcomeError,
    WritesRefusedError,
)

LOG = logging.getLogger(__name__)

PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
BAD_USER_INPUT = "BAD_USER_INPUT"
LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
NOT_FOUND = "NOT_FOUND"
UNAVAILABLE = "DATABASE_UNAVAILABLE"
UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"
SHUTTING_DOWN = "SERVICE_UNAVAILABLE"
INTERNAL = "INTERNAL_SERVER_ERROR"
FORBIDDEN = "FORBIDDEN"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
TOO_FAR_BEHIND = "TOO_FAR_BEHIND"
MORE_ERRORS = "MORE_ERRORS"

MAX_ERRORS = 5
"""The most errors in the response to one operation."""

_HIDDEN = {
    UNAVAILABLE: "The database can't be reached, or refuses: try again later.",
    UNKNOWN_OUTCOME: "The database was lost meanwhile: look whether the change was made before you try again.",
}
"""The messages in place of those that may name hosts and paths."""


class BadInput(GraphQLError):  # noqa: N818 - named like a code, since graphql-core puts it into the response as it is
    """An argument or a variable has an invalid value."""

    def __init__(self, message: str, argument: str) -> None:
        super().__init__(message, extensions={"code": BAD_USER_INPUT, "argument": argument})
        self.argument = argument


class PartlyDoneError(Exception):
    """The database failed, or the server was to end, during a mutation that had changed something before."""

    def __init__(self, cause: BackendError, effects: Sequence[Mapping[str, str]]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.effects = effects


_CODES: tuple[tuple[type[DatabaseError], str], ...] = (
    (EntityNotFoundError, NOT_FOUND),
    (InvalidRequestError, BAD_USER_INPUT),
    (UnknownOutcomeError, UNKNOWN_OUTCOME),
    (ShuttingDownError, SHUTTING_DOWN),
    (OverdueError, DEADLINE_EXCEEDED),
    (TooFarBehindError, TOO_FAR_BEHIND),
    (BackendError, UNAVAILABLE),
)
"""The first that fits counts."""


def code_of(error: DatabaseError) -> str:
    """The code in `errors`. A `RefusedError` has none: it belongs into `userErrors`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)


def format_errors(
    errors: Sequence[GraphQLError],
    code: str = BAD_USER_INPUT,
    translated: Callable[[GraphQLError], GraphQLError] = lambda error: error,
) -> list[GraphQLFormattedError]:
    """The errors of a response. Each has a code: `code` for those that graphql-core has found, which have none.

    There are at most `MAX_ERRORS`; where more were found, the last one says how many are left out.
    """
    first = errors if len(errors) <= MAX_ERRORS else errors[: MAX_ERRORS - 1]
    found = [_coded(translated(error).formatted, code) for error in first]
    if more := len(errors) - len(first):
        message = f"There are {more} more errors, which are left out: ask for less at a time."
        found.append({"message": message, "extensions": {"code": MORE_ERRORS, "more": more}})
    return found


def translate(error: GraphQLError, *, reveal: bool = True) -> GraphQLError:
    """The error of an execution as a client may read it.

    Without `reveal` its message does not tell where the database is; the log has the whole message.
    """
    original = error.original_error
    match original:
        case None:
            return error
        case GraphQLError() if original.nodes or original.extensions:
            return error  # graphql-core's about the document, or our own; others are about a value that has no answer
        case PartlyDoneError(cause=cause, effects=effects):
            message = _message(cause, reveal=reveal)
            message = (
                f"{message} Before that {len(effects)} entities were changed: `effects` in the extensions names them."
            )
            return _replaced(error, message, code=code_of(cause), effects=list(effects))
        case DatabaseError():
            return _replaced(error, _message(original, reveal=reveal), code=code_of(original))
    error_id = secrets.token_hex(8)
    LOG.error("Error %s at %s", error_id, error.path, exc_info=original)
    return _replaced(error, f"Internal error {error_id}: the server's log says more.", code=INTERNAL, id=error_id)


def _coded(error: GraphQLFormattedError, code: str) -> GraphQLFormattedError:
    return {**error, "extensions": {"code": code, **error.get("extensions", {})}}


def _message(error: DatabaseError, *, reveal: bool) -> str:
    hidden = None if reveal or isinstance(error, WritesRefusedError) else _HIDDEN.get(code_of(error))
    if hidden is None:
        return str(error)
    LOG.warning("%s", error)
    return hidden


def _replaced(error: GraphQLError, message: str, **extensions: Any) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
