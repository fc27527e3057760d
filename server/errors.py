"""The roots of the errors that are raised on purpose. Each boundary translates those of one root.

ExpectedError        a person at a shell reads its message as one line on stderr, without a traceback
├── UsageError       a command that can't be done; settings, token files and others have errors of their own below it
├── FetchError       a URL that can't be read, in http_client.py
└── DatabaseError    what the database layer raises: the tree is in database/errors.py
RequestError         a request that can't be answered: an HTTP response, or the refusal of a websocket
AuthenticationError  a client that is not known: HTTP status 401, or the end of a websocket; in auth/identity.py

How a client of GraphQL reads the errors of the database is in schema/errors.py and schema/effects.py.
tests/server/test_error_tree.py checks that each error is translated at each boundary which it can reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

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
"""The code in `extensions`, by the HTTP status of a `RequestError`."""


class ExpectedError(Exception):
    """Its message is one line, which says what is wrong and what to do, and never holds a password."""

    exit_code: ClassVar[int] = 1
    """The exit code of a command that ends with it."""


class UsageError(ExpectedError):
    """The command line, a setting, or a file that it names has to be changed."""


class RequestError(Exception):
    """The request can't be answered as it is; the message says what to send instead."""

    def __init__(
        self, message: str, status: int = HTTPStatus.BAD_REQUEST, headers: dict[str, str] | None = None
    ) -> None:
        """`status` is one of `CODES`; `headers` are added to the response, such as `Allow`."""
        super().__init__(message)
        self.status = status
        self.headers = headers

    @property
    def code(self) -> str:
        """The error code, for programs."""
        return CODES[self.status]


class IllFormedRequestError(RequestError):
    """The body is JSON, and no request of GraphQL."""
