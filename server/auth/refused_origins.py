"""Origins that are not allowed: what their pages are told, and one log line for each."""

from __future__ import annotations

import logging

from server.allow_lists import check_origin

LOG = logging.getLogger(__name__)

_MAX_ORIGINS = 100
"""That are logged: whoever makes origins up does not fill the log."""


class Strangers:
    def __init__(self) -> None:
        self._seen: set[str] = set()

    def refusal(self, origin: str | None) -> str:
        """In words, with what would let them in."""
        if origin in (None, "null") or not _is_origin(origin):
            return "Pages of other sites are not let in: see the setting --allow-origins."
        told = f"Pages of {origin} are not let in: --allow-origins {origin} lets them in."
        if origin not in self._seen and len(self._seen) < _MAX_ORIGINS:
            self._seen.add(origin)
            LOG.warning("%s They then show a token. This is logged once.", told)
        return told


def _is_origin(text: str) -> bool:
    """As browsers write one: then it is nothing else either."""
    try:
        check_origin(text)
    except ValueError:
        return False
    return text.isprintable()
