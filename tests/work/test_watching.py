"""A source that breaks costs nothing but itself."""

from __future__ import annotations

import asyncio
import logging

import pytest

from server.database.observations import Observations
from server.database.workspaces import Source
from server.work import watching as module
from server.work.source import WorkSource
from server.work.watching import watching
from tests.support.live import until

pytestmark = pytest.mark.anyio


class Steady(WorkSource):
    source = Source.BROKER_QUEUES

    def __init__(self, observations: Observations) -> None:
        self._observations = observations

    async def run(self) -> None:
        self._observations.set_source(self.source, works=True)
        await asyncio.Event().wait()


class Broken(WorkSource):
    source = Source.CELERY_EVENTS

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        self._observations.set_source(self.source, works=True)
        raise RuntimeError("a bug")


async def test_a_broken_source_is_run_again_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as down meanwhile, the same error is a warning only once, and the others go on."""
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "_LAST_PAUSE", 0.001)
    observations = Observations(lambda _keys: None)
    broken = Broken(observations)
    async with watching(observations, [broken, Steady(observations)]):
        await until(lambda: broken.runs > 3)
        assert observations.sources == [Source.BROKER_QUEUES]
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1


async def test_the_pause_grows_and_begins_anew_after_a_source_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails once a day is back after a second each time."""
    pauses: list[float] = []
    lifetimes = iter([0.0, 0.0, 0.0, 100.0, 0.0])
    now = 0.0

    class Mortal(Broken):
        async def run(self) -> None:
            nonlocal now
            now += next(lifetimes, 0.0)
            await super().run()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await rest(0.001)

    rest = asyncio.sleep
    monkeypatch.setattr(module, "monotonic", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    observations = Observations(lambda _keys: None)
    async with watching(observations, [Mortal(observations)]):
        while len(pauses) < 5:
            await rest(0.001)
    assert pauses[:5] == [1.0, 2.0, 4.0, 1.0, 2.0]
