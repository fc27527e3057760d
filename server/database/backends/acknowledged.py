"""The acknowledged writes of the last minute: after a failover, those that the new server does not have are told."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from server.database.backends.write_set import WriteSet

LOG = logging.getLogger(__name__)
AUDIT = logging.getLogger("merlin_graphql.audit")
"""The same log as that of mutations."""

_MOST = 10_000
"""Writes that are remembered; the oldest one is forgotten first."""


@dataclass(frozen=True, slots=True)
class _Acknowledged:
    id: str
    sent_at: float
    effects: tuple[tuple[str, str, str], ...]
    """Of each record: what was done, its kind, and its id."""


class AcknowledgedWrites:
    """What this process wrote, for as long as the database keeps the mark of each write."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._writes: deque[_Acknowledged] = deque(maxlen=_MOST)
        self.lost = 0
        """How many acknowledged writes were found to be lost."""

    def add(self, batch: WriteSet, sent_at: float) -> None:
        """`sent_at` is of the monotonic clock, and not later than the moment when the mark was set."""
        effects = [("DELETED", key.kind.value, key.id) for key in batch.deleted]
        effects += [
            ("CREATED" if batch.read.get(key) is None else "UPDATED", key.kind.value, key.id)
            for key in dict.fromkeys((*batch.written, *batch.patches))
        ]
        self._writes.append(_Acknowledged(batch.id, sent_at, tuple(effects)))

    async def find_lost(self, are_there: Callable[[Sequence[str]], Awaitable[Sequence[bool]]]) -> None:
        """Tells of each write whose mark is gone. `are_there` says by the ids of writes which marks still exist."""
        now = time.monotonic()
        recent = [write for write in self._writes if now - write.sent_at < self._seconds]
        if not recent:
            self._writes.clear()
            return
        found = await are_there([write.id for write in recent])
        asked_until = time.monotonic()
        lost = {
            write.id: write
            for write, is_there in zip(recent, found, strict=True)
            if not is_there and asked_until - write.sent_at < self._seconds
        }
        too_old = now - self._seconds
        kept = [write for write in self._writes if write.id not in lost and write.sent_at > too_old]
        self._writes = deque(kept, maxlen=_MOST)
        for write in lost.values():
            self._tell(write)

    def _tell(self, write: _Acknowledged) -> None:
        self.lost += 1
        what = ", ".join(f"{kind} {id_} {action}" for action, kind, id_ in write.effects) or "names or notes only"
        LOG.warning("The database has lost a write that it had acknowledged: %s.", what)
        effects = [{"action": action, "kind": kind, "id": id_} for action, kind, id_ in write.effects]
        AUDIT.warning("%s", json.dumps({"outcome": "lost", "write": write.id, "effects": effects}))
