"""Origins that are not allowed: the message for their pages, and one log line for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from server.allow_lists import check_origin

LOG = logging.getLogger(__name__)

_MAX_ORIGINS = 100
"""Origins that are logged, so that a client that makes origins up can't fill the log."""
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_PROXY = (
    "The Host header is not that of this page: if a proxy stands between, such as a dev server, let it keep the Host "
    "(changeOrigin: false)."
)


class RefusedOrigins:
    """Writes the refusals, and remembers which origins are logged."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def refusal(self, headers: Mapping[str, str]) -> str:
        """The error message, which names the setting that would allow the origin, and a proxy that may be the cause."""
        origin = headers.get("origin")
        if origin in (None, "null") or not _is_origin(origin):
            return "Pages of other sites are not let in: see the setting --allow-origins."
        message = f"Pages of {origin} are not let in: --allow-origins {origin} lets them in."
        hint = f" {_PROXY}" if _may_be_proxied(origin, headers) else ""
        if origin not in self._seen and len(self._seen) < _MAX_ORIGINS:
            self._seen.add(origin)
            LOG.warning("%s Such pages then need a token.%s This is logged once.", message, hint)
        return message + hint


def _may_be_proxied(origin: str, headers: Mapping[str, str]) -> bool:
    """Whether a proxy may have changed the Host: a browser calls it the page's own, or the page is of a dev server."""
    host = origin.partition("://")[2].lower()
    return headers.get("sec-fetch-site") == "same-origin" or host.startswith(_LOOPBACK)


def _is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers write it: only then is it safe to quote."""
    try:
        check_origin(text)
    except ValueError:
        return False
    return text.isprintable()
