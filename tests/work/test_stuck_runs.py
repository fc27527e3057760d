"""Which runs are stuck: active, while nothing waits for them and nobody is alive to work on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from server.database.attendance import Attendance, attendance_of
from server.database.merlin_database import MerlinDatabase
from server.database.models import LogicalWorkerModel, Model, RunStatus
from server.database.observations import LiveWorker, QueueLength
from server.database.steps import RECORDS_PER_STEP
from server.database.workspaces import Source
from server.work import stuck_runs as module
from server.work.stuck_runs import HOLD, HOLD_BEFORE_START, StuckRuns
from tests.support.asking import ask
from tests.support.live import until
from tests.support.records import logical_worker, physical_worker, run, uid
from tests.support.subscribers import RUN_CHANGES, copy_of, kinds_and_ids, put, subscribed

pytestmark = pytest.mark.anyio

Q = "[merlin]_q"
RUNNING = RunStatus.RUNNING
BOTH = (Source.BROKER_QUEUES, Source.CELERY_EVENTS)
STUCK = "{ runs { nodes { id isStuck } } }"
SOMEBODY = logical_worker("sim", (Q,))
NAME = "celery@sim.%host"


@dataclass
class Site:
    """A database with a clock that the test moves."""

    database: MerlinDatabase
    stuck_runs: StuckRuns
    now: float = 1000.0

    async def after(self, seconds: float) -> Mapping[str, bool | None]:
        """What is known of each run after two rounds with so many seconds between them."""
        await self.stuck_runs.decide(self.now)
        self.now += seconds
        await self.stuck_runs.decide(self.now)
        return self.known()

    def known(self) -> Mapping[str, bool | None]:
        return {run.id[-2:]: run.is_stuck for run in self.database.runs.all()}

    def lengths(self, **lengths: int | None) -> None:
        self.database.observations.set_queues(
            {f"[merlin]_{name}": QueueLength(length) for name, length in lengths.items()}
        )

    def alive(self, name: str, *, active: int | None = 0, is_alive: bool = True) -> None:
        worker = LiveWorker(name, "1", is_alive, datetime.now(UTC), active)
        self.database.observations.set_workers(name, [worker])


def site(*records: Model, **lengths: int | None) -> Site:
    database = copy_of(*records)
    made = Site(database, StuckRuns(database))
    made.lengths(**lengths)
    for source in BOTH:
        database.observations.set_source(source, works=True)
    return made


def running(
    number: int = 11, *queues: str, status: RunStatus = RUNNING, worker: LogicalWorkerModel | None = None
) -> Model:
    workers = () if worker is None else (worker.id,)
    return run(number, queues=queues or (Q,), run_status=status, workers=workers)


async def test_a_run_that_nobody_works_on_is_stuck_after_some_seconds() -> None:
    """Nothing waits, and nobody is alive: workers are launched, and tasks queued, a moment after the record is made."""
    one = site(running(), q=0)
    assert await one.after(HOLD - 1) == {"11": False}
    assert await one.after(1) == {"11": True}


@pytest.mark.parametrize("status", RunStatus)
async def test_each_status_has_its_time(status: RunStatus) -> None:
    """Merlin makes the samples of a run that is QUEUED already; what is finished is never stuck."""
    one = site(running(status=status), q=0)
    has_begun = status not in (RunStatus.INITIALIZED, RunStatus.QUEUED)
    assert (await one.after(HOLD))["11"] is (has_begun and not status.is_finished)
    assert (await one.after(HOLD_BEFORE_START))["11"] is not status.is_finished


async def test_a_new_status_begins_the_time_anew() -> None:
    """A worker has just taken its first task."""
    one = site(running(status=RunStatus.QUEUED), q=0)
    assert (await one.after(HOLD_BEFORE_START))["11"] is True
    put(one.database, running())
    assert (await one.after(HOLD - 1))["11"] is False
    assert (await one.after(1))["11"] is True


async def test_a_message_that_waits_is_hope() -> None:
    """In any of its queues, whether or not somebody is there to take it, and whatever is unknown beside it."""
    one = site(running(11, Q, "[merlin]_other"), q=0, other=1)
    assert await one.after(99) == {"11": False}
    one.lengths(q=None, other=1)
    assert await one.after(99) == {"11": False}
    one.lengths(q=0, other=0)
    assert await one.after(HOLD) == {"11": True}
    one.lengths(q=2, other=0)
    assert await one.after(0) == {"11": False}


@pytest.mark.parametrize(
    "records",
    [
        [running(worker=SOMEBODY), SOMEBODY, physical_worker(21, NAME, logical_worker_id=SOMEBODY.id)],
        [running(), SOMEBODY, physical_worker(21, NAME, logical_worker_id=SOMEBODY.id)],
        [running(), logical_worker("sim", (Q,), physical_workers=(uid(21),)), physical_worker(21, NAME)],
    ],
    ids=["named by the run", "serves a queue of it", "listed on one side"],
)
async def test_a_living_worker_is_hope(records: list[Model]) -> None:
    """An idle one, too: by the record of its name, however that is linked. A dead one is none."""
    one = site(*records, q=0)
    one.alive(NAME)
    assert (await one.after(99))["11"] is False
    one.alive(NAME, is_alive=False)
    assert (await one.after(HOLD))["11"] is True


async def test_a_worker_of_other_queues_is_none() -> None:
    """It lives, but not for this run."""
    other = logical_worker("other", ("[merlin]_o",))
    one = site(running(), other, physical_worker(21, NAME, logical_worker_id=other.id), q=0)
    one.alive(NAME, active=3)
    assert await one.after(HOLD) == {"11": True}


async def test_workers_that_no_record_names() -> None:
    """One with `overlap: True` is known by its name; others count while they work: nobody knows their queues."""
    one = site(running(), SOMEBODY, q=0)
    one.alive("celery@sim20261125-165021.%host")
    assert await one.after(99) == {"11": False}
    one.alive("celery@sim20261125-165021.%host", is_alive=False)
    one.alive("celery@stranger", active=0)
    assert await one.after(HOLD) == {"11": True}
    for active in (1, None):
        one.alive("celery@stranger", active=active)
        assert await one.after(0) == {"11": False}


async def test_what_is_not_known() -> None:
    """Without one of the sources nothing is; without a length, or with no queue at all, not that run."""
    one = site(
        running(11), running(12, "[merlin]_odd"), run(13, run_status=RUNNING), run(14, run_status=RunStatus.FAILED), q=0
    )
    assert await one.after(HOLD) == {"11": True, "12": None, "13": None, "14": False}
    for source in BOTH:
        one.database.observations.set_source(source, works=False)
        assert one.known() == {"11": None, "12": None, "13": None, "14": False}
        assert await one.after(99) == one.known()
        one.database.observations.set_source(source, works=True)
        assert await one.after(HOLD - 1) == {"11": False, "12": None, "13": None, "14": False}
        assert (await one.after(1))["11"] is True


async def test_it_can_be_asked_for_and_filtered_by() -> None:
    """null matches neither value, and `not` matches it."""
    one = site(running(11), running(12, "[merlin]_busy"), running(13, "[merlin]_odd"), q=0, busy=1)
    await one.after(HOLD)
    answer = await ask(one.database, STUCK)
    assert {node["id"][-2:]: node["isStuck"] for node in answer["runs"]["nodes"]} == {
        "11": True,
        "12": False,
        "13": None,
    }

    async def found(filter_: str) -> set[str]:
        answer = await ask(one.database, f"{{ runs(filter: {{ {filter_} }}) {{ totalCount nodes {{ id }} }} }}")
        ids = {node["id"][-2:] for node in answer["runs"]["nodes"]}
        assert answer["runs"]["totalCount"] == len(ids)
        return ids

    assert await found("isStuck: true") == {"11"}
    assert await found("isStuck: false") == {"12"}
    assert await found("not: { isStuck: true }") == {"12", "13"}
    assert await found("not: { isStuck: false }") == {"11", "13"}
    assert await found("or: [{ isStuck: true }, { isStuck: false }]") == {"11", "12"}
    assert await found("isStuck: true, status: { eq: QUEUED }") == set()


async def test_a_filter_may_match_everything_or_not() -> None:
    """`deleteRuns` refuses a filter that excludes no run; one that names both values excludes what is unknown."""
    one = site(running(11), run(13, run_status=RUNNING), q=0)
    await one.after(HOLD)
    mutation = """mutation ($filter: RunFilter!) {
      deleteRuns(input: { filter: $filter, dryRun: true, force: true }) { deletedIds userErrors { code } }
    }"""
    filters: list[dict[str, Any]] = [{"isStuck": True}, {"not": {"isStuck": True}}]
    everything = await ask(one.database, mutation, filter={"or": filters})
    assert [error["code"] for error in everything["deleteRuns"]["userErrors"]] == ["INVALID"]
    some = await ask(one.database, mutation, filter={"or": [{"isStuck": True}, {"isStuck": False}]})
    assert some["deleteRuns"]["userErrors"] == []


async def test_followers_hear_when_it_changes() -> None:
    """Of the runs whose answer changed, and of no others."""
    one = site(running(11), running(12, "[merlin]_busy"), q=0, busy=1)
    await one.after(0)
    async with (
        subscribed(one.database, RUN_CHANGES, filter={"isStuck": True}) as stuck,
        subscribed(one.database, RUN_CHANGES) as everything,
    ):
        assert await stuck.read() == await everything.read() == []
        await one.after(HOLD)
        assert kinds_and_ids(await stuck.read()) == [("CREATED", uid(11))]
        assert kinds_and_ids(await everything.read()) == [("UPDATED", uid(11))]
        one.lengths(q=1, busy=1)
        await one.after(99)
        assert kinds_and_ids(await stuck.read()) == [("LEFT", uid(11))]
        one.lengths(q=0, busy=1)
        await one.after(HOLD)
        assert kinds_and_ids(await stuck.read()) == [("CREATED", uid(11))]
        put(one.database, running(11, status=RunStatus.CANCELLED))
        assert kinds_and_ids(await stuck.read()) == [("LEFT", uid(11))]
        await everything.read()
        one.database.observations.set_source(Source.CELERY_EVENTS, works=False)
        await one.after(0)
        assert kinds_and_ids(await everything.read()) == [("UPDATED", uid(12))]


async def test_many_active_runs_are_told_in_portions() -> None:
    """All of them, once each."""
    count = RECORDS_PER_STEP + 50
    one = site(*(running(number) for number in range(count)), q=0)
    await one.after(0)
    async with subscribed(one.database, RUN_CHANGES, filter={"isStuck": True}) as stuck:
        assert await stuck.read() == []
        known = await one.after(HOLD)
        assert all(known.values())
        told = [await stuck.wait() for _ in range(count)]
        assert {kind for kind, _ in kinds_and_ids(told)} == {"CREATED"}
        assert len({id_ for _, id_ in kinds_and_ids(told)}) == count


async def test_consumers_are_the_living_workers() -> None:
    """By queue: null while nobody listens to heartbeats; two processes of one name are divided among its owners."""
    other = logical_worker("other", ("[merlin]_o", Q))
    records: list[Model] = [
        SOMEBODY,
        other,
        physical_worker(21, NAME, logical_worker_id=SOMEBODY.id),
        running(11, "[merlin]_alone"),
    ]
    one = site(*records, physical_worker(22, "celery@other.%host", logical_worker_id=other.id), q=0)
    one.alive(NAME)
    one.alive("celery@other.%host")
    one.alive("celery@gone.%host", is_alive=False)
    asked = "{ queues { queue consumers } }"
    answer = {one["queue"]: one["consumers"] for one in (await ask(one.database, asked))["queues"]}
    assert answer == {Q: 2, "[merlin]_o": 1, "[merlin]_alone": 0}
    workers = [LiveWorker(NAME, pid, is_alive=True, last_seen_at=datetime.now(UTC)) for pid in ("1", "2")]
    one.database.observations.set_workers(NAME, workers)
    assert {count["consumers"] for count in (await ask(one.database, asked))["queues"]} == {3, 1, 0}
    one.database.observations.set_queues({Q: QueueLength(0, 7)})
    assert {count["consumers"] for count in (await ask(one.database, asked))["queues"]} == {7, 1, 0}
    one.database.observations.set_source(Source.CELERY_EVENTS, works=False)
    assert {count["consumers"] for count in (await ask(one.database, asked))["queues"]} == {7, None}


async def test_a_fault_costs_the_answers_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, nothing is known until the next round, and then all is well again."""
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    monkeypatch.setattr(module, "_INTERVAL", 0.0)
    one = site(running(), q=0)
    await one.after(HOLD)
    faults = iter([RuntimeError("ours")])

    def attendance(*given: Any) -> Attendance:
        for fault in faults:
            raise fault
        return attendance_of(*given)

    monkeypatch.setattr(module, "attendance_of", attendance)
    task = asyncio.create_task(one.stuck_runs.run())
    await until(lambda: one.known() == {"11": None})
    await until(lambda: one.known() == {"11": False})
    assert [record.message for record in caplog.records] == ["Which runs are stuck is unknown."]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
