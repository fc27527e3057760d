"""The security log: logins, failed logins and forbidden operations, a line each."""

from __future__ import annotations

import json
import logging
import re

from server.auth.identity import AuthCode, Identity
from server.auth.rate_limit import RateLimit
from server.auth.session_cookie import Session
from server.auth.visitor import Visitor
from server.request_id import REQUEST_ID

SECURITY = logging.getLogger("merlin_graphql.security")

_LINES_PER_MINUTE = 30
"""Refusals of one network that are logged, so that nobody can fill the disk by guessing tokens."""
_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)
_SHOWN_ID_LENGTH = 8
"""Characters: enough to find the lines of a session, and too few to be the id."""


class SecurityLog:
    """Writes the lines; those for refusals are limited."""

    def __init__(self) -> None:
        self._lines = RateLimit(_LINES_PER_MINUTE)
        self._omissions = RateLimit(1)

    def refused(self, visitor: Visitor, code: AuthCode | str) -> None:
        """Logs a request that was refused before its client was known."""
        if not self._lines.wait(visitor.network):
            _log(logging.WARNING, "refused", visitor, code=code)
        elif not self._omissions.wait(visitor.network):
            _log(logging.WARNING, "many refused, of which some have no line", visitor, code=code)

    def forbidden(self, visitor: Visitor, identity: Identity, what: str) -> None:
        """Logs that a known client lacks the role for `what`."""
        _log(logging.WARNING, "forbidden", visitor, who=identity.name, what=what)

    def begun(self, visitor: Visitor, session: Session) -> None:
        _log(logging.INFO, "session begun", visitor, who=session.identity.name, session=_shown(session))

    def ended(self, visitor: Visitor, session: Session) -> None:
        """Logs that a browser has logged out."""
        _log(logging.INFO, "session ended", visitor, who=session.identity.name, session=_shown(session))


def _log(level: int, event: str, visitor: Visitor, **more: str) -> None:
    fields = {
        "address": visitor.address,
        "protocol": visitor.protocol,
        **{name: str(value) for name, value in more.items()},
    }
    words = " ".join(f"{name}={_quoted(value)}" for name, value in {**fields, "request": REQUEST_ID.get()}.items())
    SECURITY.log(level, "%s: %s", event, words, extra={"event": event, **fields})


def _quoted(value: str) -> str:
    """Quotes a value with blanks, so that it stays one word of the line."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


def _shown(session: Session) -> str:
    return session.id[:_SHOWN_ID_LENGTH]
