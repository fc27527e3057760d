"""Subscriptions are paid for: each execution once, and without points they wait."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from schema import sharing
from schema.context import Context
from schema.operation import OperationError
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, Task, TaskStatus
from tests.support.asking import OPERATIONS
from tests.support.made_up_workspaces import MadeUpReader, observed, workspace_of
from tests.support.records import run, uid
from tests.support.subscribers import RUN_CHANGES, Subscriber, copy_of, kinds_and_ids, put

pytestmark = pytest.mark.anyio

LIVE = "subscription { live(throttle: 0) { runs { totalCount } } }"


class Purse:
    """Points that a test puts in and looks at."""

    reset_at = datetime(2026, 1, 1, tzinfo=UTC)

    def __init__(self, remaining: int, limit: int = 1_000, per_second: float = 1e9) -> None:
        self.remaining = remaining
        self.limit = limit
        self.per_second = per_second
        self.asked = 0
        """How often there were too few points."""

    def take(self, points: int) -> float:
        if points > self.remaining:
            self.asked += 1
            return 0.001
        self.remaining -= points
        return 0.0

    def give_back(self, points: int) -> None:
        self.remaining += points

    async def empty(self) -> None:
        """Waits until somebody has waited for points."""
        asked = self.asked
        async with asyncio.timeout(20):
            while self.asked <= asked + 1:
                await asyncio.sleep(0.001)


def subscriber(database: MerlinDatabase, document: str, purse: Purse, who: str = "a", **variables: Any) -> Subscriber:
    made = Subscriber(database, document, **variables)
    context = Context(database, "1", Role.ADMIN, who, allowance=purse)
    made.answers = OPERATIONS.execute(OPERATIONS.parse(document), variables, context)
    return made


async def price_of(document: str) -> int:
    database, purse = copy_of(run(1)), Purse(1_000)
    one = subscriber(database, document, purse)
    await one.read()
    before = purse.remaining
    put(database, run(1, "/new"), *([run(2)] if document == LIVE else []))
    await one.wait()
    await one.read()
    await one.close()
    return before - purse.remaining


async def test_without_points_events_wait_and_become_one() -> None:
    """An entity that changes several times meanwhile is told once; one that comes and goes is not told."""
    price = await price_of(RUN_CHANGES)
    assert price > 0
    database, purse = copy_of(run(1)), Purse(price)
    one = subscriber(database, RUN_CHANGES, purse)
    assert await one.read() == []
    assert purse.remaining == price
    put(database, run(1, "/a"))
    assert kinds_and_ids([await one.wait()]) == [("UPDATED", run(1).id)]
    assert await one.read() == []
    for number in range(5):
        put(database, run(1, f"/{number}"), run(2, f"/{number}"))
        await purse.empty()
        assert await one.read() == []
    purse.remaining = 10 * price
    told = [await one.wait(), await one.wait()]
    assert [answer["data"]["change"]["node"]["workspace"] for answer in told] == ["/4", "/4"]
    assert await one.read() == []
    await one.close()
    assert purse.remaining == 8 * price


async def test_live_waits_for_points_and_tells_the_newest_result() -> None:
    """It is not refused, and all ticks meanwhile are one."""
    price = await price_of(LIVE)
    database, purse = copy_of(run(1)), Purse(price)
    one = subscriber(database, LIVE, purse)
    assert (await one.wait())["data"]["live"]["runs"]["totalCount"] == 1
    for number in range(2, 7):
        put(database, run(number))
        assert await one.read() == []
    await purse.empty()
    purse.remaining = price
    assert (await one.wait())["data"]["live"]["runs"]["totalCount"] == 6
    assert purse.remaining == 0
    await one.close()


async def test_live_rests_as_long_as_its_cost_takes_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """If less than a quarter of the points remains; else only for its throttle."""
    price, pauses, sleep = await price_of(LIVE), list[float](), asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    for remaining, pause in ((price + 250, 0.0), (price + 249, price / 1e9)):
        database, purse = copy_of(run(1)), Purse(remaining)
        one = subscriber(database, LIVE, purse)
        await one.wait()
        monkeypatch.setattr("schema.subscription.asyncio.sleep", noted)
        await one.read()
        monkeypatch.setattr("schema.subscription.asyncio.sleep", sleep)
        assert pause in pauses
        pauses.clear()
        await one.close()


async def test_an_execution_that_several_share_is_paid_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of the clients whose subscriptions caused it."""
    monkeypatch.setattr(sharing, "_SHARED_FOR", 60.0)
    price = await price_of(RUN_CHANGES)
    database, purses = copy_of(run(1)), [Purse(1_000) for _ in range(3)]
    crowd = [subscriber(database, RUN_CHANGES, purse, str(number)) for number, purse in enumerate(purses)]
    for one in crowd:
        assert await one.read() == []
    put(database, run(1, "/new"))
    for one in crowd:
        assert len(await one.read()) == 1
    assert sum(1_000 - purse.remaining for purse in purses) == price
    for one in crowd:
        await one.close()


async def test_what_depends_on_the_client_is_not_shared() -> None:
    """Each client is told its own budget."""
    document = "subscription { live { viewer { budget { remaining } } } }"
    database, purses = copy_of(), [Purse(500), Purse(900)]
    crowd = [subscriber(database, document, purse, str(number)) for number, purse in enumerate(purses)]
    told = [(await one.wait())["data"]["live"]["viewer"]["budget"]["remaining"] for one in crowd]
    assert told == [purse.remaining for purse in purses]
    for one in crowd:
        await one.close()


async def test_what_never_can_be_paid_is_refused_at_its_beginning() -> None:
    """A subscription that would wait for ever."""
    one = subscriber(copy_of(run(1)), RUN_CHANGES, Purse(1, limit=1))
    with pytest.raises(
        OperationError, match=r"costs \d+ points, and 1 of this client's 1 remain: ask for less\."
    ) as refused:
        await anext(one.answers)
    assert refused.value.code == "BUDGET_EXCEEDED"


async def test_changes_of_tasks_wait_for_points_and_become_one() -> None:
    """Each event is paid; a log costs what its text may take; what nobody was told costs nothing."""
    database = copy_of(run(1))
    made = workspace_of(a=[TaskStatus.WAITING] * 2)
    reader = MadeUpReader(database.observations, {uid(1): made})
    reader.observe(uid(1))
    document = "subscription ($run: ID!) { taskChanges(runId: $run) { kind task { path status } } }"
    purse = Purse(1_000)
    one = subscriber(database, document, purse, run=uid(1))
    assert await one.read() == []
    assert purse.remaining == 1_000
    purse.remaining = 0
    for status in (TaskStatus.RUNNING, TaskStatus.FAILED):
        made = made.with_tasks(Task("a", "a/0", status))
        database.observations.set_runs({uid(1): observed(made)})
        await purse.empty()
    purse.remaining = 1_000
    change = (await one.wait())["data"]["taskChanges"]
    assert change == {"kind": "UPDATED", "task": {"path": "a/0", "status": "FAILED"}}
    assert await one.read() == []
    assert 990 <= purse.remaining < 1_000
    await one.close()

    reader.logs["a/0", LogStream.STDOUT] = "END\n"
    document = "subscription ($run: ID!, $task: ID!) { log(runId: $run, taskId: $task) { text } }"
    purse.remaining = 1_000
    log = subscriber(database, document, purse, run=uid(1), task=task_id(uid(1), "a/0"))
    assert (await log.wait())["data"]["log"]["text"] == "END\n"
    await log.close()
    assert 930 <= purse.remaining < 940
