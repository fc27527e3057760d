"""Subscribers share the event loop: neither a long snapshot nor many live queries keep it from others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from schema.changes import LiveTick, SubscriptionEvent
from schema.sharing import SharedAnswers
from server.database import change_log
from server.database import steps as steps_module
from server.database.models import Entry
from server.database.recent import Recent
from server.database.steps import Steps
from server.database.watches import Dependence
from tests.support.records import run
from tests.support.subscribers import RUN_CHANGES, copy_of, key_of, put, subscribed

pytestmark = pytest.mark.anyio

MANY = 300
RUNS = [run(number) for number in range(MANY)]


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event in a pass of the loop, however fast the machine is."""
    monkeypatch.setattr(steps_module, "STEP_SECONDS", 1e-9)


@pytest.mark.usefixtures("short_steps")
async def test_others_work_while_a_snapshot_is_sent() -> None:
    """A snapshot gives way after each step; what goes or comes meanwhile is told right, and once."""
    database = copy_of(*RUNS)
    passes = 0

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    counting = asyncio.create_task(count_passes())
    async with subscribed(database, RUN_CHANGES, snapshot=True) as subscriber:
        told = [await subscriber.wait() for _ in range(MANY // 2)]
        ids = {said["data"]["change"]["id"] for said in told}
        gone = next(record for record in RUNS if record.id not in ids)
        database.read_model.apply([Entry(key_of(gone), None)])
        put(database, run(MANY + 1))
        told += [await subscriber.wait() for _ in range(MANY - MANY // 2)]
    counting.cancel()
    assert passes >= MANY - 1
    events = [(said["data"]["change"]["kind"], said["data"]["change"]["id"]) for said in told]
    assert sorted(events[:-1]) == sorted(("SNAPSHOT", record.id) for record in RUNS if record is not gone)
    assert events[-1] == ("CREATED", run(MANY + 1).id)


async def test_a_subscriber_far_behind_is_told_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody reads, the log is compacted a little with each change; it stays short, and nothing is lost."""
    monkeypatch.setattr(change_log, "_MIN_COMPACTION_LENGTH", 16)
    database = copy_of(*RUNS)
    async with subscribed(database, RUN_CHANGES) as subscriber:
        assert await subscriber.read() == []
        for number in range(10):
            for record in RUNS:
                put(database, replace(record, additional_data=f'{{"n": {number}}}'))
            assert len(database.changes) <= 4 * MANY
        told = [(said["data"]["change"]["kind"], said["data"]["change"]["id"]) for said in await subscriber.read()]
    assert told == [("UPDATED", record.id) for record in RUNS]


class Query:
    """A live query, whose execution counts."""

    def __init__(self, steps: Steps) -> None:
        self.executed = 0
        self.answers = SharedAnswers(self._execute, steps, Recent(100_000), lambda _: 100)

    async def _execute(self, _event: SubscriptionEvent, _dependence: Dependence) -> int:
        self.executed += 1
        return self.executed


@pytest.mark.usefixtures("short_steps")
async def test_ticks_that_wait_for_their_turn_become_one() -> None:
    """However many subscribers a live query has, it is executed once for all ticks that came before its turn."""
    steps = Steps()
    one, other = Query(steps), Query(steps)
    asked = [asyncio.create_task(one.answers.to(LiveTick(number))) for number in range(100)]
    asked += [asyncio.create_task(other.answers.to(LiveTick(number))) for number in range(100)]
    await steps.turn()  # both wait
    answers = await asyncio.gather(*asked)
    assert (one.executed, other.executed) == (1, 1)
    assert set(answers) == {1}
    assert await one.answers.to(LiveTick("later")) == 2


@pytest.mark.usefixtures("short_steps")
async def test_a_subscriber_that_leaves_takes_no_answer_along() -> None:
    """Who goes while a live query waits for its turn leaves the others their answer."""
    steps = Steps()
    query = Query(steps)
    asked = [asyncio.create_task(query.answers.to(LiveTick(number))) for number in range(5)]
    await steps.turn()  # nobody else has one in this pass
    await asyncio.sleep(0)
    asked[0].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [1, 1, 1, 1]
