"""Session cookies that come with a request and do not log it in: a hint for the client, and a line in the log.

Behind a dev server a browser sends cookies of every port of its host, and the proxy may change the Host header, by
which a cookie is found and a page is known as this server's own.
"""

from __future__ import annotations

import logging
import re

from server.auth.session_cookie import cookie_name
from server.auth.visitor import Visitor

LOG = logging.getLogger(__name__)

_MAX_HINTS = 100
"""Hints that are logged, so that a client that makes names up can't fill the log."""
_OURS = re.compile(r"(?:^|;)\s*((?:__Host-|__Secure-)?merlin_graphql(?:_\d{1,5})?)=", re.ASCII)


class UnusedSessions:
    """Writes the hints, and remembers which are logged."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def hint(self, visitor: Visitor) -> str:
        """Why a session cookie of the request does not count; empty if it has none. Only cookies' names are quoted."""
        names = _OURS.findall(visitor.headers.get("cookie", ""))
        if not names:
            return ""
        expected = cookie_name(visitor)
        if expected in names:
            hint = "The session cookie does not count for a page of another origin than the Host header: send a token."
        else:
            hint = (
                f"The session cookie {names[0]} is of another server or port; this address needs {expected}: log in at "
                "/login of the address of your page. If a proxy stands between, such as a dev server, let it keep the "
                "Host (changeOrigin: false) and pass /login on, too, or let it add a token."
            )
        if hint not in self._seen and len(self._seen) < _MAX_HINTS:
            self._seen.add(hint)
            LOG.warning("A request was not logged in. %s This is logged once.", hint)
        return hint
