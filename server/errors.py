"""The errors of the server, and who is told of them.

RequestError   a request that can't be answered: an HTTP response, or the refusal of a websocket
UsageError     a command that can't be done: one line on stderr

Those of the database are in database/errors.py; how a client of GraphQL sees them, in schema/errors.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

CODES: Mapping[int, str] = {
    400: "BAD_REQUEST",
    403: "FORBIDDEN",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    421: "MISDIRECTED_REQUEST",
    429: "RATE_LIMITED",
}


class RequestError(Exception):
    """It is no request that can be answered; the message says what to do."""

    def __init__(
        self, message: str, status: int = HTTPStatus.BAD_REQUEST, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers

    @property
    def code(self) -> str:
        """For programs."""
        return CODES[self.status]


class UsageError(Exception):
    """The base of all that a person at a shell is told in one line."""
