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
"""Of strangers from one address: nobody fills the disk by guessing."""
_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)
_SHOWN_OF_AN_ID = 8
"""Characters: enough to find a session's lines."""


class SecurityLog:
    def __init__(self) -> None:
        self._lines = RateLimit(_LINES_PER_MINUTE)
        self._omissions = RateLimit(1)

    def refused(self, visitor: Visitor, code: AuthCode | str) -> None:
        """What a stranger has shown, or asked for without a right to."""
        if not self._lines.wait(visitor.network):
            _tell(logging.WARNING, "refused", visitor, code=code)
        elif not self._omissions.wait(visitor.network):
            _tell(logging.WARNING, "many refused, of which some have no line", visitor, code=code)

    def forbidden(self, visitor: Visitor, identity: Identity, what: str) -> None:
        """To somebody who is known."""
        _tell(logging.WARNING, "forbidden", visitor, who=identity.name, what=what)

    def begun(self, visitor: Visitor, session: Session) -> None:
        _tell(logging.INFO, "session begun", visitor, who=session.identity.name, session=_shown(session))

    def ended(self, visitor: Visitor, session: Session) -> None:
        """By its browser."""
        _tell(logging.INFO, "session ended", visitor, who=session.identity.name, session=_shown(session))


def _tell(level: int, event: str, visitor: Visitor, **more: str) -> None:
    told = {"address": visitor.address, "protocol": visitor.protocol, **{name: str(it) for name, it in more.items()}}
    words = " ".join(f"{name}={_quoted(value)}" for name, value in {**told, "request": REQUEST_ID.get()}.items())
    SECURITY.log(level, "%s: %s", event, words, extra={"event": event, **told})


def _quoted(value: str) -> str:
    """So that a name with blanks is no further word."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


def _shown(session: Session) -> str:
    return session.id[:_SHOWN_OF_AN_ID]
