"""Subscriptions: what a subscriber has been told adds up to what stands, however it reads and whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.context import Context
from schema.operation import OperationError
from schema.roles import Role
from server.database import change_log
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase
from server.database.models import (
    EntityKind,
    Entry,
    Key,
    Model,
    RunStatus,
)
from tests.support.asking import OPERATIONS
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.subscribers import (
    CHANGES,
    RUN_CHANGES,
    Said,
    Subscriber,
    copy_of,
    key_of,
    kinds_and_ids,
    put,
    subscribed,
)

pytestmark = pytest.mark.anyio


def drop(database: MerlinDatabase, *records: Model) -> None:
    database.read_model.apply(Entry(key_of(record), None) for record in records)


# --- any history, any pace ---------------------------------------------------------------------------------------


STUDIES = [uid(1), uid(2)]
RUNS = [uid(11), uid(12), uid(13)]
WORKERS = [logical_worker("a").id, logical_worker("b").id]


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """What may stand under one of few keys: links of one or both sides, dangling ones, or nothing."""

    def some(values: list[str]) -> tuple[str, ...]:
        return tuple(draw(st.lists(st.sampled_from(values), max_size=3, unique=True)))

    kind = draw(st.sampled_from(EntityKind))
    record: Model
    match kind:
        case EntityKind.STUDY:
            record = study(draw(st.sampled_from([1, 2])), draw(st.sampled_from(["x", "y"])), runs=some(RUNS))
        case EntityKind.RUN:
            record = run(
                draw(st.sampled_from([11, 12, 13])),
                draw(st.sampled_from(["/a", "/a_20260101-000000", "/a_20260301-000000"])),
                study_id=draw(st.sampled_from([None, *STUDIES])),
                workers=some(WORKERS),
                run_status=draw(st.sampled_from([RunStatus.RUNNING, RunStatus.FAILED])),
            )
        case EntityKind.LOGICAL_WORKER:
            record = logical_worker(draw(st.sampled_from(["a", "b"])), runs=some(RUNS))
        case EntityKind.PHYSICAL_WORKER:
            record = physical_worker(draw(st.sampled_from([21, 22])), restart_count=draw(st.integers(0, 1)))
    return Entry(key_of(record), draw(st.sampled_from([record, record, None])))


FILTERS: list[Said] = [
    {"status": {"eq": "RUNNING"}},
    {"study": {"name": {"eq": "x"}}},
    {"not": {"study": {"name": {"eq": "x"}}}},
    {"worker": {"name": {"eq": "a"}}},
    {"or": [{"worker": {"name": {"eq": "b"}}}, {"study": {"name": {"eq": "y"}}}]},
    {"launchedAt": {"after": "2026-02-01T00:00:00Z"}},
    {"and": [{"worker": {}}, {"status": {"in": ["FAILED"]}}]},
]
ASKED: list[tuple[str, Said]] = [
    (CHANGES, {}),
    (CHANGES, {"kinds": ["STUDY", "RUN"]}),
    (CHANGES, {"ids": [uid(11), uid(1), uid(99)]}),
    (RUN_CHANGES, {}),
    *((RUN_CHANGES, {"filter": one}) for one in FILTERS),
]
SUBSCRIPTIONS = [(document, {**said, "snapshot": snapshot}) for document, said in ASKED for snapshot in (True, False)]

STANDING = """
query ($filter: RunFilter) {
  studies { nodes { id name } }
  runs(filter: $filter) { nodes { id workspace status } }
  logicalWorkers { nodes { id name } }
  physicalWorkers { nodes { id name } }
}
"""
FIELDS = {"STUDY": "studies", "RUN": "runs", "LOGICAL_WORKER": "logicalWorkers", "PHYSICAL_WORKER": "physicalWorkers"}


async def standing(database: MerlinDatabase, document: str, said: Said) -> dict[str, Any]:
    """What a subscriber to this should know: read anew, by a query."""
    answers = OPERATIONS.execute(
        OPERATIONS.parse(STANDING), {"filter": said.get("filter")}, Context(database, "1", Role.ADMIN)
    )
    data: Any = (await anext(answers)).data
    await answers.aclose()
    kinds = ["RUN"] if document == RUN_CHANGES else said.get("kinds", FIELDS)
    found = [node for kind in kinds for node in data[FIELDS[kind]]["nodes"]]
    return {node["id"]: node for node in found if node["id"] in said.get("ids", [node["id"]])}


GONE = ("LEFT", "DELETED")


def take(subscriber: Subscriber, answers: list[Said], recreated: set[str]) -> None:
    """Adds what it is told to what it knows, and checks that it makes sense to who knows that."""
    for answer in answers:
        change = answer["data"]["change"]
        kind, id_, node = change["kind"], change["id"], change["node"]
        assert (node is None) == (kind == "DELETED")
        if kind in GONE:
            assert id_ in subscriber.known or id_ in recreated
            subscriber.known.pop(id_, None)
        else:
            assert node["id"] == id_
            is_known = id_ in subscriber.known
            assert is_known == (kind == "UPDATED") or id_ in recreated
            subscriber.known[id_] = node


@pytest.mark.parametrize("tidy_from", [0, 1024])
@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(SUBSCRIPTIONS), min_size=1, max_size=3),
    st.lists(entries(), max_size=6),
    st.lists(st.lists(entries(), min_size=1, max_size=4) | st.integers(0, 2), max_size=15),
)
def test_what_was_told_adds_up_to_what_stands(
    tidy_from: int, subscriptions: list[tuple[str, Said]], first: list[Entry], steps: list[list[Entry] | int]
) -> None:
    """Whoever reads at whatever pace knows in the end what stands, was told nothing twice, and missed nothing."""

    async def go() -> None:
        database = MerlinDatabase(MemoryBackend(), "1", UTC)
        database.read_model.apply(first)
        gone: set[str] = set()
        recreated: set[str] = set()
        async with AsyncExitStack() as stack:
            subscribers = []
            for document, said in subscriptions:
                subscriber = await stack.enter_async_context(subscribed(database, document, **said))
                if not said["snapshot"]:
                    subscriber.known = await standing(database, document, said)
                    assert await subscriber.read_one() is None
                subscribers.append(subscriber)
            for step in steps:
                if isinstance(step, int):
                    subscriber = subscribers[step % len(subscribers)]
                    told = await subscriber.read_one()
                    take(subscriber, [] if told is None else [told], recreated)
                    continue
                for change in database.read_model.apply(step):
                    if change.after is None:
                        gone.add(change.key.id)
                    elif change.before is None and change.key.id in gone:
                        recreated.add(change.key.id)
                await asyncio.sleep(0)
            for subscriber, (document, said) in zip(subscribers, subscriptions, strict=True):
                take(subscriber, await subscriber.read(), recreated)
                assert await subscriber.read() == []
                assert subscriber.known == await standing(database, document, said)
            assert tidy_from or len(database.changes) <= 2 * 9 + 4 * 6
        assert database.changes.followers == len(database.changes) == 0

    tidied, change_log._MIN_COMPACTION_LENGTH = change_log._MIN_COMPACTION_LENGTH, tidy_from
    try:
        anyio.run(go)
    finally:
        change_log._MIN_COMPACTION_LENGTH = tidied


# --- how a run leaves --------------------------------------------------------------------------------------------


RUNNING: Said = {"filter": {"status": {"eq": "RUNNING"}}}
HISTORY = st.lists(st.tuples(st.sampled_from([11, 12]), st.sampled_from([None, *RunStatus])), min_size=1, max_size=12)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(HISTORY, HISTORY, st.booleans())
def test_a_map_kept_by_the_events_is_the_result_of_the_filter(
    before: list[tuple[int, RunStatus | None]], history: list[tuple[int, RunStatus | None]], snapshot: bool
) -> None:
    """Told each step or all at once: LEFT comes with the run as it is, which does not match, DELETED with none."""

    def stand(database: MerlinDatabase, number: int, status: RunStatus | None) -> None:
        database.read_model.apply(
            [Entry(Key(EntityKind.RUN, uid(number)), None if status is None else run(number, run_status=status))]
        )

    async def go() -> None:
        database = copy_of()
        for number, status in before:
            stand(database, number, status)
        async with (
            subscribed(database, RUN_CHANGES, **RUNNING, snapshot=snapshot) as eager,
            subscribed(database, RUN_CHANGES, **RUNNING, snapshot=snapshot) as late,
        ):
            for subscriber in (eager, late):
                if not snapshot:
                    subscriber.known = await standing(database, RUN_CHANGES, RUNNING)
                take(subscriber, await subscriber.read(), set())
            for number, status in history:
                stand(database, number, status)
                told = await eager.read()
                take(eager, told, set())
                assert eager.known == await standing(database, RUN_CHANGES, RUNNING)
                for answer in told:
                    change = answer["data"]["change"]
                    now = None if status is None else status.value
                    assert (change["node"] and change["node"]["status"]) == now
                    assert (change["kind"] == "DELETED") == (now is None)
                    assert (change["kind"] == "LEFT") == (now not in (None, "RUNNING"))
            take(late, await late.read(), set())
            assert late.known == await standing(database, RUN_CHANGES, RUNNING)

    anyio.run(go)


async def test_a_run_that_ceases_to_match_arrives_as_left_with_what_it_is_now() -> None:
    """And when it is deleted later, nothing more is told of it."""
    database = copy_of(run(11, run_status=RunStatus.RUNNING))
    async with subscribed(database, RUN_CHANGES, **RUNNING) as subscriber:
        assert await subscriber.read() == []
        put(database, run(11, run_status=RunStatus.COMPLETED))
        (told,) = await subscriber.read()
        assert kinds_and_ids([told]) == [("LEFT", uid(11))]
        assert told["data"]["change"]["node"]["status"] == "COMPLETED"
        drop(database, run(11))
        assert await subscriber.read() == []


async def test_a_run_that_goes_while_it_matches_arrives_as_deleted() -> None:
    """Also where it had ceased to match before that, and nobody was told yet."""
    working = [run(number, run_status=RunStatus.RUNNING) for number in (11, 12)]
    database = copy_of(*working)
    async with subscribed(database, RUN_CHANGES, **RUNNING) as subscriber:
        assert await subscriber.read() == []
        drop(database, working[0])
        assert kinds_and_ids(await subscriber.read()) == [("DELETED", uid(11))]
        put(database, run(13, run_status=RunStatus.RUNNING))  # the one that it waits for, and takes at once
        await asyncio.sleep(0)
        put(database, run(12, run_status=RunStatus.FAILED))
        drop(database, working[1])
        assert kinds_and_ids(await subscriber.read()) == [("CREATED", uid(13)), ("DELETED", uid(12))]


# --- one by one --------------------------------------------------------------------------------------------------


async def test_a_snapshot_comes_first_and_in_order() -> None:
    """The runs that match come in their default order, then what changes."""
    old, new = run(11, "/a_20260101-000000"), run(12, "/b_20260102-000000")
    database = copy_of(old, new, run(13, run_status=RunStatus.FAILED))
    async with subscribed(database, RUN_CHANGES, filter={"status": {"eq": "INITIALIZED"}}, snapshot=True) as subscriber:
        assert kinds_and_ids(await subscriber.read()) == [("SNAPSHOT", new.id), ("SNAPSHOT", old.id)]
        put(database, replace(old, run_status=RunStatus.FAILED))
        assert kinds_and_ids(await subscriber.read()) == [("LEFT", old.id)]
        put(database, old)
        assert kinds_and_ids(await subscriber.read()) == [("CREATED", old.id)]


async def test_many_changes_of_an_entity_are_one() -> None:
    """A subscriber that reads late hears once of each entity, as it is then; what came and went is not told."""
    database = copy_of(run(11))
    async with subscribed(database, CHANGES) as subscriber:
        assert await subscriber.read() == []
        put(database, run(11, "/first"))  # the one that it waits for, and takes at once
        await asyncio.sleep(0)
        for number in range(100):
            put(database, run(11, f"/{number}"), run(12, f"/other {number}"), run(13, f"/passing {number}"))
        drop(database, run(13))
        answers = await subscriber.read()
        assert kinds_and_ids(answers)[-2:] == [("UPDATED", uid(11)), ("CREATED", uid(12))]
        assert [answer["data"]["change"]["node"]["workspace"] for answer in answers[-2:]] == ["/99", "/other 99"]
        assert len(answers) <= 3


async def test_the_log_holds_each_entity_once() -> None:
    """However long a subscriber does not read, the log grows with the entities and not with the changes."""
    database = copy_of()
    async with subscribed(database, CHANGES) as subscriber:
        assert await subscriber.read() == []
        for number in range(20_000):
            put(database, run(number % 10, f"/{number}"))
        assert len(database.changes) < 2_100
        assert len(await subscriber.read()) <= 11


async def test_what_came_and_went_is_not_kept() -> None:
    """While a subscriber does not read: it would not be told of it."""
    database = copy_of(run(11))
    async with subscribed(database, CHANGES) as subscriber:
        assert await subscriber.read() == []
        put(database, run(11, "/first"))  # the one that it waits for, and takes at once
        await asyncio.sleep(0)
        for number in range(20, 20_000):
            put(database, run(number))
            drop(database, run(number))
        assert len(database.changes) <= 1024
        put(database, run(11, "/last"))
        assert kinds_and_ids(await subscriber.read())[-1:] == [("UPDATED", uid(11))]


@pytest.mark.parametrize("snapshot", [False, True])
async def test_who_was_told_of_a_run_is_told_of_its_end(snapshot: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside others that were told of neither, and to whom it never was."""
    monkeypatch.setattr(change_log, "_MIN_COMPACTION_LENGTH", 0)
    database = copy_of()
    async with (
        subscribed(database, CHANGES) as slow,
        subscribed(database, CHANGES, snapshot=snapshot) as reader,
    ):
        assert await slow.read() == await reader.read() == []
        put(database, run(11))
        assert kinds_and_ids(await slow.read()) == [("CREATED", uid(11))]
        put(database, run(12))
        assert kinds_and_ids(await reader.read()) == [("CREATED", uid(11)), ("CREATED", uid(12))]
        await asyncio.sleep(0)
        drop(database, run(12))
        drop(database, run(11))
        for number in range(20, 40):
            put(database, run(number))
            drop(database, run(number))
        told = kinds_and_ids(await reader.read())
        assert [one for one in told if one[0] == "DELETED"] == [("DELETED", uid(12)), ("DELETED", uid(11))]
        assert ("DELETED", uid(11)) in kinds_and_ids(await slow.read())


async def test_a_subscriber_too_far_behind_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so when it reads again, and holds nothing meanwhile; one that reads is told of every change."""
    monkeypatch.setattr(change_log, "_MIN_COMPACTION_LENGTH", 4)
    monkeypatch.setattr(change_log, "_MAX_ENTRIES", 4)
    old, new = [run(number) for number in range(100, 120)], [run(number) for number in range(200, 250)]
    database = copy_of(*old)
    async with subscribed(database, CHANGES) as stuck, subscribed(database, CHANGES) as reader:
        assert await stuck.read() == await reader.read() == []
        put(database, run(100, "/first"))  # the one that it waits for, and takes at once
        await asyncio.sleep(0)
        assert await reader.read() != []
        for record in old:
            drop(database, record)
            assert kinds_and_ids(await reader.read()) == [("DELETED", record.id)]
        for record in new:
            put(database, record)
            assert kinds_and_ids(await reader.read()) == [("CREATED", record.id)]
        assert database.changes.followers == 1
        assert len(database.changes) <= 4
        await stuck.wait()  # what it had taken
        with pytest.raises(OperationError, match="subscribe again") as caught:
            await stuck.wait()
        assert caught.value.code == "TOO_FAR_BEHIND"


async def test_a_subscriber_that_waits_may_be_too_far_behind_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one change of more than is kept: it is told so, and does not go on as if nothing had been."""
    monkeypatch.setattr(change_log, "_MIN_COMPACTION_LENGTH", 4)
    monkeypatch.setattr(change_log, "_MAX_ENTRIES", 4)
    old, new = [run(number) for number in range(100, 120)], [run(number) for number in range(200, 240)]
    database = copy_of(*old)
    async with subscribed(database, CHANGES) as subscriber:
        assert await subscriber.read() == []
        drop(database, *old)
        put(database, *new)
        with pytest.raises(OperationError) as caught:
            await subscriber.wait()
        assert caught.value.code == "TOO_FAR_BEHIND"


async def test_a_deletion_of_everything_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it was: nobody is ended that had no time to read."""
    monkeypatch.setattr(change_log, "_MIN_COMPACTION_LENGTH", 4)
    monkeypatch.setattr(change_log, "_MAX_ENTRIES", 4)
    records = [run(number) for number in range(100, 300)]
    database = copy_of(*records)
    async with subscribed(database, CHANGES) as subscriber:
        assert await subscriber.read() == []
        drop(database, *records)
        assert kinds_and_ids(await subscriber.read()) == [("DELETED", record.id) for record in records]
        assert len(database.changes) == 0


async def test_nothing_is_kept_for_nobody() -> None:
    """Before the first subscriber and after the last one the log is empty."""
    database = copy_of(run(11))
    async with subscribed(database, CHANGES) as subscriber:
        assert await subscriber.read() == []
        put(database, run(11, "/other"))
        assert len(database.changes) == 1
    assert len(database.changes) == 0
    put(database, run(11))
    assert len(database.changes) == 0


async def test_a_run_matches_when_its_study_comes() -> None:
    """A filter that looks at the study hears of a run whose own record did not change."""
    member = run(11, study_id=uid(1))
    database = copy_of(member)
    async with subscribed(database, RUN_CHANGES, filter={"study": {"name": {"eq": "x"}}}) as subscriber:
        assert await subscriber.read() == []
        put(database, study(1, "x"))
        assert kinds_and_ids(await subscriber.read()) == [("CREATED", member.id)]
        put(database, study(1, "x", runs=(member.id,)))
        assert await subscriber.read() == []
        put(database, study(1, "y", runs=(member.id,)))
        assert kinds_and_ids(await subscriber.read()) == [("LEFT", member.id)]


@pytest.mark.parametrize(
    ("document", "variables", "message"),
    [
        (CHANGES, {"ids": [uid(1)] * 501}, "ids: ask for at most 500 at a time, not 501."),
        (RUN_CHANGES, {"filter": {"status": None}}, "filter.status: null has no meaning here; leave the key out."),
        ("subscription { live(throttle: -1) { __typename } }", {}, "throttle: pass 0 to 3600000 milliseconds, not -1."),
    ],
)
async def test_an_argument_that_cannot_be_meant_is_refused(document: str, variables: Said, message: str) -> None:
    """It is told before anything else, with a code, and nothing is subscribed to."""
    database = copy_of()
    subscriber = Subscriber(database, document, **variables)
    with pytest.raises(OperationError) as caught:
        await subscriber.wait()
    (error,) = caught.value.errors
    assert error["message"] == message
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert database.changes.followers == 0
