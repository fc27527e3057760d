"""The runs that are not finished: those that sources look after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from server.database.models import RunModel, RunStatus
from server.database.read_model import ReadModel
from server.database.steps import RECORDS_PER_STEP, portions_of

ACTIVE = tuple(status for status in RunStatus if not status.is_finished)


def has_active_runs(read_model: ReadModel) -> bool:
    return any(read_model.run_statuses.of(status) for status in ACTIVE)


async def active_runs(read_model: ReadModel) -> AsyncIterator[Sequence[RunModel]]:
    """Portions of them, between which other tasks run. A run whose status changes meanwhile may be left out."""
    records = read_model.runs.records
    for status in ACTIVE:
        for some in portions_of(list(read_model.run_statuses.of(status)), RECORDS_PER_STEP):
            yield [run for _, id_ in some if (run := records.get(id_)) is not None and run.run_status is status]
            await asyncio.sleep(0)
