"""A quota: how many of something each client may have at once."""

from __future__ import annotations

import math


class Quota:
    """Counts what each client has, by its name."""

    def __init__(self, maximum: float = math.inf) -> None:
        self.maximum = maximum
        self._counts: dict[str, int] = {}

    def enter(self, client: str) -> bool:
        """Counts one more, and returns whether the client may have it; if not, nothing is counted."""
        count = self._counts.get(client, 0)
        if count >= self.maximum:
            return False
        self._counts[client] = count + 1
        return True

    def leave(self, client: str) -> None:
        """Counts one less."""
        self._counts[client] -= 1
        if not self._counts[client]:
            del self._counts[client]
