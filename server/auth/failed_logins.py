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
"""A token of ours (256 random bits) or a signed one: accepted also from an address that sends wrong tokens."""


def may_be_guessed(token: str) -> bool:
    """Whether a token of this form could be found by guessing."""
    return bool(token) and not _NOT_GUESSABLE.fullmatch(token)


class FailedLogins:
    """Counts the wrong tokens of each network."""

    def __init__(self) -> None:
        self._wrong = RateLimit(PER_MINUTE)

    @property
    def are_any(self) -> bool:
        """Whether any client has sent a wrong token lately."""
        return self._wrong.remembers_any

    def refuses(self, visitor: Visitor, token: str) -> bool:
        """Whether a token is refused without being checked."""
        return may_be_guessed(token) and self._wrong.is_exhausted(visitor.network)

    def count(self, visitor: Visitor) -> None:
        """Counts a wrong token. Raises `RequestError` if there were too many."""
        wait = self._wrong.wait(visitor.network)
        if wait:
            seconds = math.ceil(wait)
            raise RequestError(
                f"Too many wrong tokens: try again in {seconds} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
                {"retry-after": str(seconds)},
            )
