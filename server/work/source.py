"""The contract of a source: one place where this server sees the work itself."""

from __future__ import annotations

from typing import Protocol

from server.database import workspaces


class WorkSource(Protocol):
    """Writes what it sees into the `Observations` that it was made with.

    Before it writes, it awaits `read_model.long_reads.ended()`: a long answer belongs to one state of them.
    """

    @property
    def source(self) -> workspaces.Source: ...

    async def run(self) -> None:
        """Observes until it is cancelled. Calls `set_source` when it begins to work, and when it ceases to.

        It outlives what can be foreseen, such as a lost connection. Whatever it raises is logged once; then the source
        counts as down, and is run again after a pause.
        """
