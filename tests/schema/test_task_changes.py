"""Subscribers of tasks and logs: they hear of each change once, of the newest state, and pay for what they hear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.changes import LiveTick
from schema.sharing import SharedAnswers
from server.database.merlin_database import MerlinDatabase
from server.database.models import Entry, RunStatus
from server.database.observations import RunObservation
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, Progress, Source, Task, TaskStatus
from tests.support.asking import execute
from tests.support.made_up_workspaces import AS_OF, MadeUp, MadeUpReader, observed, step_of, workspace_of
from tests.support.records import run, uid
from tests.support.subscribers import Said, Subscriber, copy_of, key_of, put, subscribed

pytestmark = pytest.mark.anyio

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
RUN = uid(1)
WAITING, RUNNING, SUCCEEDED, FAILED = (
    TaskStatus.WAITING,
    TaskStatus.RUNNING,
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
)
CHANGES = """
subscription ($run: ID!, $filter: TaskFilter, $snapshot: Boolean! = false) {
  change: taskChanges(runId: $run, filter: $filter, snapshot: $snapshot) {
    kind id: taskId revision task { id path status }
  }
}
"""
LOG = """
subscription ($run: ID!, $task: ID!, $stream: LogStream! = STDOUT) {
  log(runId: $run, taskId: $task, stream: $stream) { text size start end isWhole modifiedAt }
}
"""
ONLY_FAILED = {"status": {"eq": "FAILED"}}


def observe(database: MerlinDatabase, workspace: MadeUp) -> MadeUp:
    database.observations.set_runs({RUN: observed(workspace)})
    return workspace


def told(answers: list[Said]) -> list[tuple[str, str, str]]:
    changes = [answer["data"]["change"] for answer in answers]
    return [(one["kind"], one["task"]["path"], one["task"]["status"]) for one in changes]


def task(index: int, status: TaskStatus) -> Task:
    return Task("a", f"a/{index}", status, sample_index=index)


# --- changes of tasks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_changes", [True, False])
async def test_a_change_of_a_task_is_told(tells_changes: bool) -> None:
    """And none of the others, whether or not the reader finds out which ones changed."""
    database = copy_of(run(1))
    made = observe(database, replace(workspace_of(a=[WAITING] * 3), tells_changes=tells_changes))
    async with subscribed(database, CHANGES, run=RUN) as subscriber:
        assert await subscriber.read() == []
        made = observe(database, made.with_tasks(task(1, RUNNING)))
        assert told(await subscriber.read()) == [("UPDATED", "a/1", "RUNNING")]
        observe(database, replace(made))
        assert await subscriber.read() == []


async def test_who_reads_slowly_gets_the_newest() -> None:
    """Several changes of a task are one event."""
    database = copy_of(run(1))
    made = observe(database, workspace_of(a=[WAITING] * 3))
    async with subscribed(database, CHANGES, run=RUN) as subscriber:
        await subscriber.read()
        for status in (RUNNING, FAILED, RUNNING, SUCCEEDED):
            made = observe(database, made.with_tasks(task(0, status), task(2, RUNNING)))
        assert sorted(told(await subscriber.read())) == [("UPDATED", "a/0", "SUCCEEDED"), ("UPDATED", "a/2", "RUNNING")]


async def test_with_a_filter_tasks_come_and_leave() -> None:
    """CREATED when one begins to match, LEFT when it ceases to."""
    database = copy_of(run(1))
    made = observe(database, workspace_of(a=[WAITING, FAILED]))
    async with subscribed(database, CHANGES, run=RUN, filter=ONLY_FAILED) as subscriber:
        await subscriber.read()
        made = observe(database, made.with_tasks(task(0, RUNNING), task(1, RUNNING)))
        assert told(await subscriber.read()) == [("LEFT", "a/1", "RUNNING")]
        made = observe(database, made.with_tasks(task(0, FAILED)))
        assert told(await subscriber.read()) == [("CREATED", "a/0", "FAILED")]
        observe(database, made.with_tasks(task(0, FAILED)._replace(restarts=1)))
        assert told(await subscriber.read()) == [("UPDATED", "a/0", "FAILED")]


async def test_changes_are_filtered_by_parameters() -> None:
    """Those of the tasks of a combination are told, and counted by a live query."""
    database = copy_of(run(1))
    tasks = [task(index, WAITING)._replace(parameters={"X": index // 2}) for index in range(4)]
    made = observe(database, MadeUp([step_of("a", tasks)]))
    said = {"and": [{"parameter": {"key": "X", "eq": 1}}, {"status": {"eq": "FAILED"}}]}
    list_ = "run(id: $run) { tasks(filter: $filter) { totalCount } }"
    live = f"subscription ($run: ID!, $filter: TaskFilter) {{ live {{ {list_} }} }}"
    async with (
        subscribed(database, CHANGES, run=RUN, filter=said) as subscriber,
        subscribed(database, live, run=RUN, filter=said) as counts,
    ):
        assert await subscriber.read() == []
        assert (await counts.wait())["data"]["live"]["run"]["tasks"] == {"totalCount": 0}
        failed = [one._replace(status=FAILED) for one in tasks]
        observe(database, made.with_tasks(failed[0], failed[3]))
        assert told(await subscriber.read()) == [("CREATED", "a/3", "FAILED")]
        assert (await counts.wait())["data"]["live"]["run"]["tasks"] == {"totalCount": 1}


async def test_a_snapshot_comes_first() -> None:
    """In the order of the specification, of the tasks that match; changes follow it without gap or repeat."""
    database = copy_of(run(1))
    made = observe(database, workspace_of(b=[FAILED, WAITING], a=[FAILED] * 2))
    async with subscribed(database, CHANGES, run=RUN, filter=ONLY_FAILED, snapshot=True) as subscriber:
        assert told([await subscriber.wait()]) == [("SNAPSHOT", "b/0", "FAILED")]
        made = observe(database, made.with_tasks(task(1, RUNNING), Task("b", "b/1", FAILED)))
        assert told(await subscriber.read()) == [("SNAPSHOT", "a/0", "FAILED"), ("CREATED", "b/1", "FAILED")]


async def test_a_workspace_that_nobody_has_read_is_read_first() -> None:
    """And stays observed while somebody follows it."""
    database = copy_of(run(1))
    reader = MadeUpReader(database.observations, {RUN: workspace_of(a=[FAILED])})
    async with subscribed(database, CHANGES, run=RUN, snapshot=True) as subscriber:
        assert told(await subscriber.read()) == [("SNAPSHOT", "a/0", "FAILED")]
    assert reader.asked == [{RUN}]
    assert reader.interest[RUN] > 0


async def test_the_last_event_says_that_the_run_is_gone() -> None:
    """Then the subscription ends."""
    database = copy_of(run(1))
    observe(database, workspace_of(a=[WAITING]))
    async with subscribed(database, CHANGES, run=RUN) as subscriber:
        await subscriber.read()
        database.read_model.apply([Entry(key_of(run(1)), None)])
        database.notifier.notify()
        change = (await subscriber.wait())["data"]["change"]
        assert change == {"kind": "DELETED", "id": RUN, "revision": database.revision, "task": None}
        with pytest.raises(StopAsyncIteration):
            await subscriber.wait()


async def test_an_unknown_run_is_refused() -> None:
    """So is the id of a task of another run."""
    database = copy_of(run(1), run(2))
    (error,) = (await execute(database, CHANGES, {"run": uid(9)})).errors
    assert error.extensions["code"] == "NOT_FOUND"
    (error,) = (await execute(database, LOG, {"run": RUN, "task": task_id(uid(2), "a/0")})).errors
    assert error.message == "taskId: this is not the id of a task of the run: pass `Task.id` unchanged."


STATUSES = st.sampled_from([WAITING, RUNNING, FAILED, SUCCEEDED])
MOVES = st.lists(
    st.one_of(st.just("read one"), st.just("read"), st.dictionaries(st.integers(0, 3), STATUSES, min_size=1)),
    max_size=12,
)


@settings(SLOW, max_examples=60)
@given(MOVES, st.booleans(), st.booleans(), st.booleans())
def test_what_is_told_adds_up_to_what_stands(
    moves: list[Any], has_filter: bool, snapshot: bool, tells_changes: bool
) -> None:
    """Whatever changes, and however it is read."""

    async def follow() -> None:
        database = copy_of(run(1))
        made = observe(
            database, replace(workspace_of(a=[WAITING, RUNNING, FAILED, FAILED]), tells_changes=tells_changes)
        )
        standing = {one.path: str(one.status) for one in made.tasks if not has_filter or one.status is FAILED}
        given = {"filter": ONLY_FAILED} if has_filter else {}
        async with subscribed(database, CHANGES, run=RUN, snapshot=snapshot, **given) as subscriber:
            known = {} if snapshot else standing
            if not snapshot:
                await subscriber.read()
            for move in moves:
                match move:
                    case "read one":
                        await read(subscriber, known, all_of_it=False)
                    case "read":
                        await read(subscriber, known)
                    case _:
                        changed = [task(index, status) for index, status in move.items()]
                        made = observe(database, replace(made.with_tasks(*changed), tells_changes=tells_changes))
            await read(subscriber, known)
        assert known == {one.path: str(one.status) for one in made.tasks if not has_filter or one.status is FAILED}

    anyio.run(follow)


async def read(subscriber: Subscriber, known: dict[str, str], *, all_of_it: bool = True) -> None:
    answers = await subscriber.read() if all_of_it else [await subscriber.read_one()]
    for kind, path, status in told([answer for answer in answers if answer is not None]):
        assert (kind in ("CREATED", "SNAPSHOT")) is (path not in known)
        if kind == "LEFT":
            del known[path]
        else:
            known[path] = status


# --- logs --------------------------------------------------------------------------------------------------------


async def test_a_log_is_followed() -> None:
    """Its end first, then what is added, until there is no more."""
    database = copy_of(run(1))
    reader = MadeUpReader(database.observations, {RUN: workspace_of(a=[RUNNING])})
    reader.logs["a/0", LogStream.STDERR] = "one\n"
    async with subscribed(database, LOG, run=RUN, task=task_id(RUN, "a/0"), stream="STDERR") as subscriber:
        first = (await subscriber.wait())["data"]["log"]
        place = {"size": 4, "start": 0, "end": 4, "isWhole": True}
        assert first == {"text": "one\n", **place, "modifiedAt": AS_OF.isoformat()}
        assert await subscriber.read() == []
        reader.logs["a/0", LogStream.STDERR] += "END\n"
        reader.observe(RUN)
        second = (await subscriber.wait())["data"]["log"]
        del second["modifiedAt"]
        assert second == {"text": "END\n", "size": 8, "start": 4, "end": 8, "isWhole": False}
        with pytest.raises(StopAsyncIteration):
            await subscriber.wait()


# --- what the other subscriptions hear ---------------------------------------------------------------------------


def progress(done: int) -> RunObservation:
    return RunObservation(Progress({SUCCEEDED: done}, 9, Source.CELERY_EVENTS, AS_OF))


async def test_followers_of_runs_hear_of_progress() -> None:
    """As UPDATED, by `runChanges`; also where the status is filtered."""
    database = copy_of(run(1, run_status=RunStatus.RUNNING), run(2))
    document = """subscription ($filter: RunFilter) {
      change: runChanges(filter: $filter) { kind id: runId run { progress { done total } } } }"""
    async with subscribed(database, document, filter={"status": {"eq": "RUNNING"}}) as subscriber:
        assert await subscriber.read() == []
        database.observations.set_runs({RUN: progress(3), uid(2): progress(1)})
        (answer,) = await subscriber.read()
        shown = {"progress": {"done": 3, "total": 9}}
        assert answer["data"]["change"] == {"kind": "UPDATED", "id": RUN, "run": shown}


async def test_live_queries_hear_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that show it: one that shows nothing of it is not even executed."""
    executed: list[str] = []
    execute_ = SharedAnswers._executed

    async def counted(shared: SharedAnswers[Any], event: Any, executing: Any) -> Any:
        assert isinstance(event, LiveTick)
        answer = await execute_(shared, event, executing)
        executed.append(next(iter(answer.data["live"]["run"])))
        return answer

    monkeypatch.setattr(SharedAnswers, "_executed", counted)
    database = copy_of(run(1))
    live = 'subscription { live(throttle: 0) { run(id: "%s") { %s } } }'
    async with (
        subscribed(database, live % (RUN, "progress { done }")) as one,
        subscribed(database, live % (RUN, "status")) as other,
    ):
        assert (await one.wait())["data"]["live"]["run"]["progress"] is None
        await other.wait()
        for done in (1, 2, 3):
            database.observations.set_runs({RUN: progress(done)})
            assert (await one.wait())["data"]["live"]["run"]["progress"] == {"done": done}
        assert await other.read() == []
        assert executed.count("status") == 1
        put(database, run(1, run_status=RunStatus.FAILED))
        database.notifier.notify()
        assert (await other.wait())["data"]["live"]["run"]["status"] == "FAILED"
