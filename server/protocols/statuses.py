"""The HTTP statuses of responses to operations: those that clients know today, or those of an edition of the standard.

GraphQL over HTTP, September 2026: https://http-spec.graphql.org/September2026/#sec-Status-Codes.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus

from schema.errors import (
    BUDGET_EXCEEDED,
    DEADLINE_EXCEEDED,
    FORBIDDEN,
    INTERNAL,
    PARSE_FAILED,
    SHUTTING_DOWN,
    UNAVAILABLE,
    UNKNOWN_OUTCOME,
)
from schema.operation import OperationError
from server.errors import IllFormedRequestError, RequestError
from server.responses import GRAPHQL_JSON

PARTIAL_SUCCESS = 294
"""The standard's own status for a response with data and errors."""
_ALWAYS = {FORBIDDEN: 403, BUDGET_EXCEEDED: 429, INTERNAL: 500, DEADLINE_EXCEEDED: 504}
"""The status by error code for operations that can't be begun, whatever the media type."""
_SEPTEMBER_2026 = {PARSE_FAILED: 400, UNAVAILABLE: 503, SHUTTING_DOWN: 503, UNKNOWN_OUTCOME: 503}


class HttpStatuses(StrEnum):
    """The rules of `--http-statuses`.

    `application/json` has the status 200 by both, for clients that read no other response.
    """

    COMPATIBLE = "compatible"
    SEPTEMBER_2026 = "september-2026"

    def of_error(self, error: OperationError, media_type: str) -> int:
        """The status of an operation that was refused."""
        if error.code in _ALWAYS or media_type != GRAPHQL_JSON:
            return _ALWAYS.get(error.code, HTTPStatus.OK)
        if self is HttpStatuses.COMPATIBLE:
            return HTTPStatus.BAD_REQUEST
        return _SEPTEMBER_2026.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)

    def of_response(self, media_type: str, *, has_errors: bool) -> int:
        """The status of an operation that was executed."""
        is_partial = has_errors and media_type == GRAPHQL_JSON and self is HttpStatuses.SEPTEMBER_2026
        return PARTIAL_SUCCESS if is_partial else HTTPStatus.OK

    def of_request_error(self, error: RequestError) -> int:
        """The status of a request that was refused."""
        is_ill_formed = isinstance(error, IllFormedRequestError) and self is HttpStatuses.SEPTEMBER_2026
        return HTTPStatus.UNPROCESSABLE_ENTITY if is_ill_formed else error.status
