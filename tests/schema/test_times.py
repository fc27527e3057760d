"""Times mean instants: at the calendar's edges, in every time zone, when clocks are set back; in and out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from schema.scalars import rfc3339
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model, PhysicalWorkerModel
from tests.support.asking import OPERATIONS, ask
from tests.support.raw_store import read_store
from tests.support.records import logical_worker, memory_of, physical_worker, run, uid

pytestmark = pytest.mark.anyio

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = Engine(make_schema(), compiled=False)
ZONES: list[tzinfo] = [
    UTC,
    *map(ZoneInfo, ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Africa/Monrovia")),
    ZoneInfo("Australia/Lord_Howe"),  # sets its clocks by half an hour
    timezone(timedelta(hours=23, minutes=59)),
    timezone(-timedelta(hours=23, minutes=59)),
]
FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
EDGES = [FIRST, FIRST + timedelta(hours=1), LAST - timedelta(hours=1), LAST, datetime(2026, 10, 25, 2, 30)]
NAIVE = st.sampled_from(EDGES) | st.datetimes().map(lambda it: it.replace(microsecond=0))
OFFSETS = st.sampled_from([0, 1, -1, 60, -60, 330, 14 * 60, -12 * 60, 1439, -1439])
BOUNDS = st.builds(lambda naive, minutes: naive.replace(tzinfo=timezone(timedelta(minutes=minutes))), NAIVE, OFFSETS)


def utc(aware: datetime) -> timedelta:
    """Since the first moment of the calendar, where `astimezone` may have no word for it."""
    offset = aware.utcoffset()
    assert offset is not None
    return aware.replace(tzinfo=None) - FIRST - offset


def stamp(naive: datetime | None) -> str:
    """A run's directory; `strftime` has no zeros for early years."""
    if naive is None:
        return ""
    return f"_{naive.year:04}{naive.month:02}{naive.day:02}-{naive.hour:02}{naive.minute:02}{naive.second:02}"


ASKED = """
query ($r: RunFilter, $p: PhysicalWorkerFilter) {
  runs(filter: $r, orderBy: {field: ID}) { nodes { id } }
  runCounts(filter: $r) { count }
  physicalWorkers(filter: $p, orderBy: {field: ID}) { nodes { id } }
  physicalWorkerCounts(filter: $p) { count }
}
"""
TOLD = "subscription ($r: RunFilter) { runChanges(filter: $r, snapshot: true) { kind runId } }"


@settings(SLOW, max_examples=20)
@example([None], FIRST.replace(tzinfo=UTC), "after", UTC)
@example([None], FIRST.replace(tzinfo=UTC), "before", UTC)
@example([FIRST, None], FIRST.replace(tzinfo=timezone(timedelta(hours=1))), "after", UTC)
@example([LAST, None], LAST.replace(tzinfo=timezone(timedelta(hours=-1))), "before", UTC)
@given(st.lists(st.none() | NAIVE, max_size=5), BOUNDS, st.sampled_from(["before", "after"]), st.sampled_from(ZONES))
def test_a_bound_is_an_instant(times: list[datetime | None], bound: datetime, key: str, zone: tzinfo) -> None:
    """In filters, counts and subscriptions, by variables and literals, whatever the year; also where there is none."""

    def holds(naive: datetime | None) -> bool:
        if naive is None:
            return False
        own, other = utc(naive.replace(tzinfo=zone)), utc(bound)
        return own < other if key == "before" else own > other

    runs = [run(number, f"/r{stamp(naive)}") for number, naive in enumerate(times, 1)]
    workers = [physical_worker(number + 50, heartbeat_timestamp=naive) for number, naive in enumerate(times, 1)]
    wanted = [number for number, naive in enumerate(times, 1) if holds(naive)]

    async def check() -> None:
        async with opened(await memory_of(*runs, *workers), time_zone=zone) as database:
            others = [number for number in range(1, len(times) + 1) if number not in wanted]
            for operations in (OPERATIONS, PLAIN):
                assert await found(database, operations, key, bound, negated=False) == wanted
                assert await found(database, operations, key, bound, negated=True) == others

    anyio.run(check)


async def found(database: MerlinDatabase, operations: Engine, key: str, bound: datetime, *, negated: bool) -> list[int]:
    """The numbers of the runs that match; workers and counts, and what a subscriber is told, agree."""
    given = {"launchedAt": {key: bound.isoformat()}}, {"heartbeatAt": {key: bound.isoformat()}}
    variables = dict(zip("rp", [{"not": one} for one in given] if negated else given, strict=True))
    literals = ASKED
    for name, field in (("r", "launchedAt"), ("p", "heartbeatAt")):
        literal = f'{{{field}: {{{key}: "{bound.isoformat()}"}}}}'
        literals = literals.replace(f"${name})", f"{f'{{not: {literal}}}' if negated else literal})")
        literals = literals.replace(f"${name},", f"{f'{{not: {literal}}}' if negated else literal},")
    literals = re.sub(r"query \(.*\)", "query", literals)
    data = await _first(database, operations, ASKED, variables)
    assert data == await _first(database, operations, literals, {})
    numbers = [int(node["id"][-4:]) for node in data["runs"]["nodes"]]
    assert [int(node["id"][-4:]) - 50 for node in data["physicalWorkers"]["nodes"]] == numbers
    for name in ("runCounts", "physicalWorkerCounts"):
        assert sum(one["count"] for one in data[name]) == len(numbers)
    if numbers:
        told = await _first(database, operations, TOLD, {"r": variables["r"]}, times=len(numbers) + 1)
        assert told["runChanges"]["kind"] == "SNAPSHOT"
    return numbers


async def _first(
    database: MerlinDatabase, operations: Engine, text: str, variables: dict[str, Any], times: int = 1
) -> Any:
    """The data of the last of so many answers."""
    operation = operations.parse(text)
    async with aclosing(operations.execute(operation, variables, Context(database, "1", Role.ADMIN))) as answers:
        for _ in range(times):
            answer = await anext(answers)
            assert answer.errors == []
    return answer.data


# --- out ----------------------------------------------------------------------------------------------------------

ANY_OFFSET = st.integers(-64_800, 64_800).map(lambda seconds: timezone(timedelta(seconds=seconds)))
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]([01]\d|2[0-3]):[0-5]\d")


@settings(SLOW, max_examples=100)
@example(FIRST, ZoneInfo("Europe/Berlin"))
@example(LAST, timezone(timedelta(hours=-1, seconds=-1)))
@given(st.sampled_from(EDGES) | st.datetimes(), st.sampled_from(ZONES) | ANY_OFFSET)
def test_what_is_told_is_the_same_instant(naive: datetime, zone: tzinfo) -> None:
    """With an offset of whole minutes, as RFC 3339 has it, whatever the zone had at that time."""
    told = rfc3339(naive.replace(tzinfo=zone))
    assert RFC_3339.fullmatch(told)
    assert utc(datetime.fromisoformat(told)) == utc(naive.replace(tzinfo=zone))


async def test_a_time_of_a_zone_with_seconds_is_told() -> None:
    """Of a run of 1883, and of a worker; on the way in it is the same."""
    records: list[Model] = [run(1, "/r_18830101-000000"), physical_worker(2, heartbeat_timestamp=datetime(1883, 1, 1))]
    asked = "{ runs { nodes { launchedAt } } physicalWorkers { nodes { heartbeatAt startedAt } } }"
    async with opened(await memory_of(*records), time_zone=ZoneInfo("America/New_York")) as database:
        data = await ask(database, asked)
        assert data["runs"]["nodes"] == [{"launchedAt": "1883-01-01T00:00:02-04:56"}]
        told = data["physicalWorkers"]["nodes"][0]["heartbeatAt"]
        assert told == "1883-01-01T00:00:02-04:56"
        changed = (await ask(database, UPDATED, at=told))["updatePhysicalWorker"]
        assert changed["physicalWorker"]["heartbeatAt"] == told


# --- stored -------------------------------------------------------------------------------------------------------

UPDATED = f"""mutation ($at: DateTime!) {{ updatePhysicalWorker(input: {{id: "{uid(2)}", heartbeatAt: $at}}) {{
                physicalWorker {{ heartbeatAt }} userErrors {{ code path message }} }} }}"""


def around_changes(zone: ZoneInfo) -> Iterator[datetime]:
    """Half hours of the days on which clocks are set in 2026, in UTC."""
    moment, before = datetime(2026, 1, 1, tzinfo=UTC), None
    while moment.year == 2026:
        offset = moment.astimezone(zone).utcoffset()
        if before not in (None, offset):
            yield from (moment + timedelta(minutes=15 * step) for step in range(-8, 8))
        before, moment = offset, moment + timedelta(minutes=30)


@pytest.mark.parametrize("zone", [one for one in ZONES if isinstance(one, ZoneInfo)], ids=str)
async def test_a_payload_says_what_the_next_read_says(zone: ZoneInfo) -> None:
    """An instant whose local time is that of another one is refused, and any other is stored."""
    backend = await memory_of(physical_worker(2))
    refused = 0
    async with opened(backend, time_zone=zone) as database:
        for moment in around_changes(zone):
            payload = (await ask(database, UPDATED, at=moment.isoformat()))["updatePhysicalWorker"]
            if payload["userErrors"]:
                (error,) = payload["userErrors"]
                assert (error["code"], error["path"]) == ("INVALID", ["input", "heartbeatAt"])
                refused += 1
                continue
            told = datetime.fromisoformat(payload["physicalWorker"]["heartbeatAt"])
            assert utc(told) == utc(moment)
            assert utc(stored(backend).replace(tzinfo=zone)) == utc(moment)
    sets_back = {moment.astimezone(zone).utcoffset() for moment in around_changes(zone)}
    length = max(sets_back) - min(sets_back) if sets_back else timedelta()  # type: ignore[type-var, operator]  # all have one
    assert refused == length // timedelta(minutes=15)


def stored(backend: MemoryBackend) -> datetime:
    worker = read_store(backend).model(Key(EntityKind.PHYSICAL_WORKER, uid(2)))
    assert isinstance(worker, PhysicalWorkerModel)
    assert worker.heartbeat_timestamp is not None
    return worker.heartbeat_timestamp


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
async def test_a_time_that_no_calendar_has_is_refused(at: str) -> None:
    """As INVALID: it is an instant, but can't be stored as a local time."""
    async with opened(await memory_of(physical_worker(2)), time_zone=UTC) as database:
        (error,) = (await ask(database, UPDATED, at=at))["updatePhysicalWorker"]["userErrors"]
        assert (error["code"], error["path"]) == ("INVALID", ["input", "heartbeatAt"])


async def test_a_worker_is_made_while_clocks_are_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its payload says the time that whoever reads the database says from then on."""
    zone, worker = ZoneInfo("Europe/Berlin"), logical_worker("a")
    backend = await memory_of(worker)
    made = """mutation ($of: ID!) { createPhysicalWorker(input: {name: "celery@a.b", logicalWorkerId: $of}) {
                physicalWorker { id heartbeatAt startedAt } } }"""
    async with opened(backend, time_zone=zone) as database:
        second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
        monkeypatch.setattr(type(database.entity_context), "local_now", lambda around: around.local(second))
        payload = (await ask(database, made, of=worker.id))["createPhysicalWorker"]["physicalWorker"]
    async with opened(backend, time_zone=zone) as database:
        asked = "query ($id: ID!) { physicalWorker(id: $id) { id heartbeatAt startedAt } }"
        assert (await ask(database, asked, id=payload["id"]))["physicalWorker"] == payload
