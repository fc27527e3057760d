"""Runs the sources beside the server, so that a broken one costs nothing but itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from server.database.observations import Observations
from server.database.tasks import end_tasks
from server.work.source import WorkSource

LOG = logging.getLogger(__name__)

_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
"""Seconds before a source that failed is run again."""


@asynccontextmanager
async def watching(observations: Observations, sources: Sequence[WorkSource]) -> AsyncIterator[None]:
    """Runs all of them until the end of the block."""
    tasks = [asyncio.create_task(_run(observations, source)) for source in sources]
    try:
        yield
    finally:
        await end_tasks(tasks)


async def _run(observations: Observations, source: WorkSource) -> None:
    pause, last = _FIRST_PAUSE, ""
    while True:
        began = monotonic()
        try:
            await source.run()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            LOG.log(logging.DEBUG if told == last else logging.WARNING, "%s failed.", source.source, exc_info=error)
            last = told
        observations.set_source(source.source, works=False)
        if monotonic() - began > _LAST_PAUSE:  # it has worked in between
            pause = _FIRST_PAUSE
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)
