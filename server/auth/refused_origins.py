"""Origins that are not allowed: the message for their pages, and one log line for each."""

from __future__ import annotations

import logging

from server.allow_lists import check_origin

LOG = logging.getLogger(__name__)

_MAX_ORIGINS = 100
"""Origins that are logged, so that a client that makes origins up can't fill the log."""


class RefusedOrigins:
    """Writes the refusals, and remembers which origins are logged."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def refusal(self, origin: str | None) -> str:
        """The error message, which names the setting that would allow the origin."""
        if origin in (None, "null") or not _is_origin(origin):
            return "Pages of other sites are not let in: see the setting --allow-origins."
        message = f"Pages of {origin} are not let in: --allow-origins {origin} lets them in."
        if origin not in self._seen and len(self._seen) < _MAX_ORIGINS:
            self._seen.add(origin)
            LOG.warning("%s Such pages then need a token. This is logged once.", message)
        return message


def _is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers write it: only then is it safe to quote."""
    try:
        check_origin(text)
    except ValueError:
        return False
    return text.isprintable()
