"""Writability: whether a store accepts writes. It may answer every read, and still refuse them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

LOG = logging.getLogger(__name__)


class Refusal(StrEnum):
    """Why Redis refuses a write; the first word of its error."""

    READONLY = "READONLY"
    OOM = "OOM"
    NOREPLICAS = "NOREPLICAS"
    MISCONF = "MISCONF"


_ADVICE: Mapping[Refusal, str] = MappingProxyType(
    {
        Refusal.READONLY: "it is a replica. Wait for the end of the failover, or have the server use the master",
        Refusal.OOM: "its memory is used up. Delete what is not needed, which is still possible, or raise `maxmemory`",
        Refusal.NOREPLICAS: "too few replicas follow it. Start them, or lower `min-replicas-to-write`",
        Refusal.MISCONF: "it can't save its data to disk, as its log says. Mend that, or switch off "
        "`stop-writes-on-bgsave-error`",
    }
)


def advice(refusal: Refusal) -> str:
    """The message for a client: the reason, and what to do. It names no address."""
    return f"The database refuses writes ({refusal}): {_ADVICE[refusal]}. The change was not made."


class Writability:
    """Whether the store accepted the last write."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        """Why it refused the last write; None if it accepted that."""
        self.on_change: Callable[[], None] = _ignore
        """Called when `refusal` has changed."""

    def note(self, refusal: Refusal | None) -> None:
        """Notes how the store has answered a write."""
        if refusal is self.refusal:
            return
        self.refusal = refusal
        if refusal is None:
            LOG.info("The database accepts writes again.")
        else:
            LOG.warning("The database refuses writes (%s): %s.", refusal, _ADVICE[refusal])
        self.on_change()


def _ignore() -> None:
    pass
