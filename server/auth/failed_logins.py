"""Wrong tokens: an address may send so many a minute, then it has to wait."""

from __future__ import annotations

import math
import re
from http import HTTPStatus

from server.auth.rate_limit import RateLimit
from server.auth.visitor import Visitor
from server.errors import RequestError

PER_MINUTE = 10
_NOT_GUESSABLE = re.compile(r"mgt_[\w-]{43}|[\w-]+\.[\w-]+\.[\w-]{40,}", re.ASCII)
"""256 random bits of ours, or a signature: right ones go on from an address at which somebody guesses."""


def may_be_guessed(token: str) -> bool:
    """Whether such a token could be found by trying."""
    return bool(token) and not _NOT_GUESSABLE.fullmatch(token)


class FailedLogins:
    def __init__(self) -> None:
        self._wrong = RateLimit(PER_MINUTE)

    @property
    def are_any(self) -> bool:
        """Of whomever."""
        return self._wrong.remembers_any

    def refuses(self, visitor: Visitor, token: str) -> bool:
        """Whether this token is not even looked at."""
        return may_be_guessed(token) and self._wrong.is_exhausted(visitor.network)

    def count(self, visitor: Visitor) -> None:
        """One that was wrong. Raises `RequestError` where it is one too many."""
        wait = self._wrong.wait(visitor.network)
        if wait:
            seconds = math.ceil(wait)
            raise RequestError(
                f"Too many wrong tokens: try again in {seconds} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
                {"retry-after": str(seconds)},
            )
