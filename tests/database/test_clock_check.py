"""A time zone that is not Merlin's: told once in the log, and in the integrity report until it is right."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.clock_check import ClockCheck
from server.database.entities import EntityContext
from server.database.integrity import Problem, ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Entry, Key, Model, PhysicalWorkerModel, RunModel, RunStatus
from server.database.read_model import ReadModel
from tests.conftest import Store
from tests.support.asking import ask
from tests.support.live import until
from tests.support.merlin_process import Merlin
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.writers import key_of

pytestmark = pytest.mark.anyio

BERLIN, KATHMANDU = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")
NOON = datetime(2026, 7, 1, 12, 0, 3, tzinfo=UTC)


class Site:
    """A copy that is read in one zone, and what Merlin makes there at a time that the test sets."""

    def __init__(self, zone: tzinfo, now: datetime = NOON) -> None:
        self.now = now
        self.is_fresh = True
        self.model = ReadModel()
        self.check = ClockCheck(EntityContext(self.model, zone), lambda: self.is_fresh, lambda: self.now)
        self.model.listen(self.check.look)
        self._number = 0

    def run(self, merlins: tzinfo, late: float = 2.0, status: RunStatus = RunStatus.INITIALIZED) -> RunModel:
        """One that Merlin began to make some seconds ago, on a machine of a zone."""
        self._number += 1
        stamp = (self.now - timedelta(seconds=late)).astimezone(merlins)
        made = run(self._number, f"/runs/{self._number}_{stamp:%Y%m%d-%H%M%S}", run_status=status)
        self.see(made)
        return made

    def worker(self, merlins: tzinfo, late: float = 0.005) -> PhysicalWorkerModel:
        self._number += 1
        time = (self.now - timedelta(seconds=late)).astimezone(merlins).replace(tzinfo=None)
        made = physical_worker(self._number, heartbeat_timestamp=time, latest_start_time=time)
        self.see(made)
        return made

    def see(self, *records: Model) -> None:
        self.model.apply([Entry(key_of(record), record) for record in records])

    def found(self) -> Key | None:
        """Which record the problem is about."""
        return None if self.check.problem is None else self.check.problem.key


def problem_in(check: ClockCheck) -> Problem:
    assert check.problem is not None
    return check.problem


def test_a_run_of_another_zone_is_a_problem_until_one_of_ours_comes() -> None:
    """The problem says what was seen and what to do, and is about the last such run."""
    site = Site(BERLIN)
    first, second = site.run(UTC), site.run(UTC)
    assert site.found() == Key(EntityKind.RUN, second.id) != Key(EntityKind.RUN, first.id)
    assert site.check.problem == Problem(
        ProblemKind.WRONG_TIME_ZONE,
        Key(EntityKind.RUN, second.id),
        f"The run {second.id} was created at 2026-07-01 12:00:03 UTC, and bears the time 2026-07-01 12:00:01: Merlin's "
        "clock there is at UTC+00:00, but stored times are read as of UTC+02:00. Name Merlin's time zone with "
        "--time-zone.",
        "workspace",
    )
    site.run(BERLIN)
    assert site.found() is None


def test_a_worker_of_another_zone_is_a_problem_until_one_of_ours_comes() -> None:
    """By its start time; where that is missing by its heartbeat, which is of the same moment."""
    site = Site(UTC)
    other = site.worker(KATHMANDU)
    assert site.found() == Key(EntityKind.PHYSICAL_WORKER, other.id)
    assert problem_in(site.check).field == "latest_start_time"
    assert "UTC+05:45" in problem_in(site.check).message
    site.worker(UTC)
    assert site.found() is None
    site.see(replace(other, id=uid(99), latest_start_time=None))
    assert site.found() == Key(EntityKind.PHYSICAL_WORKER, uid(99))
    assert problem_in(site.check).field == "heartbeat_timestamp"


def test_one_warning_for_each_offset(caplog: pytest.LogCaptureFixture) -> None:
    """However many runs and workers come with it, and though it was right in between."""
    site = Site(BERLIN)
    with caplog.at_level(logging.WARNING):
        for merlins in (UTC, UTC, BERLIN, UTC, KATHMANDU, KATHMANDU):
            site.run(merlins)
            site.worker(merlins)
    assert len(caplog.messages) == 2
    assert all("--time-zone" in message for message in caplog.messages)


SAID = st.integers(-720, 840).map(lambda minutes: timezone(timedelta(minutes=minutes // 15 * 15)))
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"),
    *("Pacific/Kiritimati", "Pacific/Chatham", "Etc/GMT+12", "Asia/Tehran", "Africa/Casablanca", "Europe/Dublin"),
]
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)) | st.sampled_from(
    [datetime(2026, month, day, 1, tzinfo=UTC) for month, day in ((3, 29), (10, 25))]  # Berlin's clock is changed
).flatmap(lambda change: st.timedeltas(timedelta(hours=-2), timedelta(hours=2)).map(lambda off: change + off))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ZONES).map(ZoneInfo), st.sampled_from(ZONES).map(ZoneInfo) | SAID, MOMENTS, st.floats(-4, 29))
def test_any_two_zones_are_told_apart_at_any_time(ours: ZoneInfo, merlins: tzinfo, now: datetime, late: float) -> None:
    """By what the zones' clocks really showed when the run was made: also around the hours that a clock is changed."""
    site = Site(ours, now)

    def differ(stamped: datetime) -> bool:
        return stamped.astimezone(ours).utcoffset() != stamped.astimezone(merlins).utcoffset()

    made = site.run(merlins, late)
    is_found = differ((now - timedelta(seconds=late)).replace(microsecond=0))
    assert site.found() == (Key(EntityKind.RUN, made.id) if is_found else None)
    worker = site.worker(merlins, min(late, 4))
    is_found = differ(now - timedelta(seconds=min(late, 4)))
    assert site.found() == (Key(EntityKind.PHYSICAL_WORKER, worker.id) if is_found else None)


@pytest.mark.parametrize("late", [-400, -6, 31, 60, 449, 870 - 1])
def test_a_record_that_comes_late_tells_nothing(late: float) -> None:
    """Its stamp is off by no zone: neither a problem nor a sign that all is right."""
    site = Site(BERLIN)
    for merlins in (UTC, BERLIN):
        site.run(merlins, late)
        site.worker(merlins, late)
    assert site.found() is None
    known = site.run(UTC)
    site.run(BERLIN, late)
    assert site.found() == Key(EntityKind.RUN, known.id)


def test_a_worker_is_looked_at_more_closely_than_a_run() -> None:
    """Its record comes within milliseconds: one that comes after ten seconds is no new one."""
    site = Site(BERLIN)
    site.worker(UTC, late=10)
    assert site.found() is None
    site.run(UTC, late=10)
    assert site.found() is not None


@pytest.mark.parametrize("hours", [-12.25, 14.25, 27, 24 * 365])
def test_no_zone_is_that_far_away(hours: float) -> None:
    """A stamp that no clock of the world shows is not of another zone."""
    site = Site(BERLIN)
    site.run(UTC, late=2 - hours * 3600)
    site.run(UTC, late=2 - 3600 * (1 if hours > 0 else -1) * abs(hours))
    assert site.found() is None


def test_what_is_not_new_is_not_looked_at() -> None:
    """A run without a stamp, a finished one, one that changes, one that comes back, and times with an offset."""
    site = Site(BERLIN)
    site.see(run(50, "/runs/x"), run(51, "/runs/x_99999999-999999"))
    site.run(UTC, status=RunStatus.COMPLETED)
    aware = NOON.astimezone(KATHMANDU)
    site.see(physical_worker(52, heartbeat_timestamp=aware, latest_start_time=aware), study(53), logical_worker("a"))
    assert site.found() is None
    gone = site.run(BERLIN, status=RunStatus.RUNNING)
    site.model.apply([Entry(key_of(gone), None)])
    site.now += timedelta(hours=1)
    site.see(gone)  # by Merlin's next change of its status
    site.see(replace(gone, run_status=RunStatus.QUEUED))
    assert site.found() is None


def test_what_is_read_after_a_loss_is_not_new() -> None:
    """While the database was away anything may have been made, at any time."""
    site = Site(BERLIN)
    site.is_fresh = False
    site.run(UTC)
    site.is_fresh = True
    assert site.found() is None


# --- in a database ------------------------------------------------------------------------------------------------

REPORT = "{ integrity { problems(kinds: [WRONG_TIME_ZONE]) { kind entityKind entityId field message repairable } } }"


@asynccontextmanager
async def reading(store: Store, zone: tzinfo) -> AsyncIterator[MerlinDatabase]:
    async with opened(make_backend(store.url, BackendOptions()), time_zone=zone) as database:
        yield database


def stamped(zone: tzinfo, off: timedelta = timedelta()) -> str:
    return f"/runs/x_{datetime.now(zone) + off:%Y%m%d-%H%M%S}"


async def test_what_others_make_is_looked_at_and_what_was_there_is_not(store: Store) -> None:
    """On every database, and told by the report."""
    writer = store.writer()
    try:
        async with reading(store, UTC):
            pass  # makes the tables of a new file
        writer.create(run(1, stamped(KATHMANDU)))
        async with reading(store, UTC) as database:
            assert (await ask(database, REPORT))["integrity"]["problems"] == []
            writer.create(run(2, stamped(KATHMANDU)))
            await until(lambda: database.runs.by_id(uid(2)) is not None)
            (problem,) = (await ask(database, REPORT))["integrity"]["problems"]
            assert (problem["entityId"], problem["field"], problem["repairable"]) == (uid(2), "workspace", False)
            writer.create(run(3, stamped(UTC, timedelta(seconds=-1))))
            await until(lambda: database.runs.by_id(uid(3)) is not None)
            assert (await ask(database, REPORT))["integrity"]["problems"] == []
    finally:
        writer.close()


async def test_what_our_own_mutations_make_is_not_looked_at(store: Store) -> None:
    """A client names the workspace, and says what it likes."""
    async with reading(store, UTC) as database:
        await database.runs.create("x", stamped(KATHMANDU), ["[merlin]_q"])
        assert database.clock_check.problem is None


async def test_what_comes_while_the_database_is_lost_is_not_looked_at() -> None:
    """Until it is back and read again."""
    async with opened(MemoryBackend(), time_zone=UTC) as database:
        database.feed.stale_since = datetime.now(UTC)
        database.read_model.apply([Entry(Key(EntityKind.RUN, uid(1)), run(1, stamped(KATHMANDU)))])
        assert database.clock_check.problem is None
        database.feed.stale_since = None
        database.read_model.apply([Entry(Key(EntityKind.RUN, uid(2)), run(2, stamped(KATHMANDU)))])
        assert problem_in(database.clock_check).key.id == uid(2)


SLOW = """
description: {name: slow, description: a run that stands for a while before it is finished}
study:
- {name: wait, description: nothing, run: {cmd: sleep 2}}
"""


async def test_real_merlin_on_a_machine_of_another_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run and a worker of Merlin's own, whose processes are in Kathmandu."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    with Merlin(tmp_path / "home") as merlin:
        merlin.call("logical_workers.create", "early", {"[merlin]_q"})  # makes the file
        async with reading(Store("sqlite", f"sqlite:///{merlin.database_file}"), ZoneInfo("Asia/Tokyo")) as database:
            (tmp_path / "slow.yaml").write_text(SLOW)
            await asyncio.to_thread(merlin.cli, "run", "--local", str(tmp_path / "slow.yaml"))
            await until(lambda: len(database.runs.all()) == 1)
            assert problem_in(database.clock_check).key.kind is EntityKind.RUN
            worker = merlin.call("physical_workers.create", "celery@early.%host")
            await until(lambda: database.physical_workers.by_id(worker) is not None)
            assert problem_in(database.clock_check).key == Key(EntityKind.PHYSICAL_WORKER, worker)
            assert "UTC+05:45" in problem_in(database.clock_check).message
