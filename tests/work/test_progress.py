"""The register of tasks: what follows from events in any order, and from result keys."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.database.models import EntityKind
from server.database.observations import Observations, RunObservation
from server.database.read_model import Change, ReadModel
from server.database.workspaces import Progress, Source, TaskStatus
from server.work import progress as module
from server.work.celery_messages import TaskEvent, TaskEventType
from server.work.progress import TaskRegister
from tests.support.live import until
from tests.support.read_models import entry, fill, gone
from tests.support.records import run, uid

RUN, OTHER = uid(1), uid(2)
WORKSPACE = "/runs/run_1"
NESTED = "/runs/run_1/step/nested_20260101-000000"
CODES = {"0": "SUCCEEDED", "101": "FAILED", "103": "DRY_RUN", "105": "CANCELLED", "7": "UNKNOWN", None: "UNKNOWN"}


def made() -> tuple[TaskRegister, ReadModel, Observations]:
    model = ReadModel()
    fill(model, [entry(run(1, WORKSPACE)), entry(run(2, NESTED))])
    observations = Observations(model.observe)
    return TaskRegister(model, observations), model, observations


def event(path: str, type_: TaskEventType, at: float, result: str | None = None) -> TaskEvent:
    """`path`: below the first run's workspace, or absolute."""
    id_ = path if path.startswith("/") else f"{WORKSPACE}/{path}"
    return TaskEvent(type_, id_, "celery@hand.%host", "1", result, None, None, at)


def counts(register: TaskRegister, run_id: str = RUN) -> dict[str, int]:
    progress = register.progress(run_id)
    return {} if progress is None else {str(status): count for status, count in progress.counts.items()}


def shown(observations: Observations, run_id: str = RUN) -> Progress | None:
    return observations.run(run_id).progress


# --- which status follows


@pytest.mark.parametrize(("result", "status"), CODES.items())
def test_what_a_task_returns(result: str | None, status: str) -> None:
    """Merlin's return codes are read as its status files have them; also one that it does not know is done."""
    register, _, _ = made()
    register.note([event("a", TaskEventType.SUCCEEDED, 1, result)])
    known = register.progress(RUN)
    assert known is not None
    assert counts(register) == {status: 1}
    assert (known.done, known.failed, known.total, known.fraction) == (1, status == "FAILED", None, None)
    assert known.source is Source.CELERY_EVENTS


def test_a_task_that_is_tried_again() -> None:
    """It waits, runs, is retried, runs and fails for good; while it waits for its next try it is received."""
    register, _, _ = made()
    seen: list[str] = []
    for at, type_ in enumerate(
        ["RECEIVED", "STARTED", "RETRIED", "RECEIVED", "STARTED", "FAILED", "RECEIVED", "STARTED"], start=1
    ):
        register.note([event("a", TaskEventType[type_], at)])
        seen += counts(register)
    expected = "WAITING RUNNING RETRYING RETRYING RUNNING FAILED FAILED RUNNING"
    assert seen == expected.split()


times = st.integers(1, 6).map(float)
events = st.builds(
    event,
    st.sampled_from(["a", "b/X.1", "b/X.1/0/1"]),
    st.sampled_from(TaskEventType),
    times,
    st.sampled_from([*CODES]),
)
RANKS = ["RUNNING", "UNKNOWN", "RETRYING", "CANCELLED", "DRY_RUN", "FAILED", "SUCCEEDED"]


def status_of(one: TaskEvent) -> str | None:
    match one.type:
        case TaskEventType.SUCCEEDED:
            return CODES[one.result]
        case TaskEventType.STARTED:
            return "RUNNING"
        case TaskEventType.REVOKED:
            return "CANCELLED"
        case TaskEventType.RETRIED:
            return "RETRYING"
        case TaskEventType.FAILED:
            return "FAILED"
        case _:
            return None


def expected(told: Sequence[TaskEvent], results: Sequence[str]) -> Mapping[str, int]:
    """The statuses after all of it: of each task the latest, else that it has a result, else that it waits."""
    latest: dict[str, tuple[float, int]] = {f"{WORKSPACE}/{path}": (0.0, 0) for path in results}
    waiting = {one.uuid for one in told if one.type is TaskEventType.RECEIVED}
    for one in told:
        if (status := status_of(one)) is not None:
            latest[one.uuid] = max(latest.get(one.uuid, (0.0, 0)), (one.timestamp, RANKS.index(status)))
    statuses = ["UNKNOWN" if at == 0 else RANKS[rank] for at, rank in latest.values()]
    return Counter([*statuses, *("WAITING" for _ in waiting - latest.keys())])


@given(st.lists(events, max_size=12), st.lists(st.sampled_from(["a", "c"])), st.data())
def test_any_order(told: list[TaskEvent], results: list[str], data: st.DataObject) -> None:
    """Events that come late, or twice, change nothing of what follows; nor do results that were there before."""
    register, _, _ = made()
    register.begin_listing()
    register.note_results([f"{WORKSPACE}/{path}" for path in results], is_listing=True)
    repeated = data.draw(st.permutations([*told, *told[::2]]))
    register.note(repeated)
    assert counts(register) == expected(told, results)


# --- which run


@pytest.mark.parametrize(
    ("id_", "owner"),
    [
        (f"{WORKSPACE}/step", RUN),
        (f"{WORKSPACE}/step/X.1/0/1/", RUN),
        (f"{NESTED}/step", OTHER),
        (NESTED, RUN),
        (WORKSPACE, None),
        (f"{WORKSPACE}1/step", None),
        ("/elsewhere/step", None),
        ("7569e655-01e0-4e5a-8f0a-4c5e5c2d0c0f", None),
        ("runs/run_1/step", None),
        ("/", None),
        ("", None),
        ("/x" * 2_000, None),
    ],
)
def test_whose_task_it_is(id_: str, owner: str | None) -> None:
    """The run whose workspace is the nearest above the directory; other tasks, such as Merlin's own, are nobody's."""
    register, _, _ = made()
    assert register.is_of_run(id_) is (owner is not None)
    register.note([TaskEvent(TaskEventType.STARTED, id_, "w", None, None, None, None, 1.0)])
    assert [one for one in (RUN, OTHER) if counts(register, one)] == ([] if owner is None else [owner])


@pytest.mark.anyio
async def test_a_run_that_comes_later() -> None:
    """Its tasks are known from then on, though those before were nobody's; deep ones are nobody's."""
    register, model, _ = made()
    task = "/later/run_3/step/X.1/0/1"
    async with register.showing():
        assert not register.is_of_run(task)
        assert not register.is_of_run(f"{task}/2")
        model.apply([entry(run(3, "/later/run_3"))])
        assert register.is_of_run(task)
        assert not register.is_of_run(f"{WORKSPACE}/a/b/c" + "/x" * 20)
        assert register.is_of_run(f"{WORKSPACE}/a/b/c/d")


# --- results


def test_started_in_the_middle() -> None:
    """Tasks of before are known by their keys to be done, and events say more of those that come."""
    register, _, _ = made()
    register.begin_listing()
    register.note_results([f"{WORKSPACE}/{path}" for path in "abc"], is_listing=True)
    known = register.progress(RUN)
    assert known is not None
    assert (counts(register), known.done, known.source) == ({"UNKNOWN": 3}, 3, Source.CELERY_RESULTS)
    register.note([event("c", TaskEventType.STARTED, 1), event("d", TaskEventType.STARTED, 1)])
    known = register.progress(RUN)
    assert known is not None
    assert (counts(register), known.done, known.source) == ({"UNKNOWN": 2, "RUNNING": 2}, 2, Source.CELERY_EVENTS)


def test_an_end_that_was_not_heard() -> None:
    """A result that comes while a task runs is its end; one that is listed may be of an earlier try."""
    register, _, _ = made()
    task, now = f"{WORKSPACE}/a", time.time()
    register.note([event("a", TaskEventType.STARTED, now - 1), event("a", TaskEventType.RETRIED, now)])
    register.note_results([task], is_listing=False)
    assert counts(register) == {"RETRYING": 1}
    register.note([event("a", TaskEventType.STARTED, now + 1)])
    register.note_results([task], is_listing=True)
    assert counts(register) == {"RUNNING": 1}
    register.note_results([task], is_listing=False)
    assert counts(register) == {"UNKNOWN": 1}
    register.note([event("a", TaskEventType.SUCCEEDED, now + 2, "0")])
    register.note_results([task], is_listing=False)
    assert counts(register) == {"SUCCEEDED": 1}
    register.note([event("b", TaskEventType.STARTED, 1)])
    register.note_results([f"{WORKSPACE}/b"], is_listing=True)
    assert counts(register) == {"SUCCEEDED": 1, "UNKNOWN": 1}


@pytest.mark.anyio
async def test_events_that_come_after_the_result_say_more() -> None:
    """The result of a try that is repeated is no end, also if the next try has begun by then; without events it is."""
    register, _, _ = made()
    now = time.time()
    register.note([event("a", TaskEventType.STARTED, now), event("b", TaskEventType.STARTED, now)])
    register.note_results_after(0.01, [f"{WORKSPACE}/{path}" for path in "abc"])
    register.note([event("a", TaskEventType.RETRIED, now + 1), event("a", TaskEventType.STARTED, now + 2)])
    assert counts(register) == {"RUNNING": 2}
    await until(lambda: counts(register) == {"RUNNING": 1, "UNKNOWN": 2})


def test_a_second_try_of_which_no_event_was_heard() -> None:
    """A result that comes long after the event of the retry is of another try."""
    register, _, _ = made()
    register.note([event("a", TaskEventType.RETRIED, time.time() - 60)])
    register.note_results([f"{WORKSPACE}/a"], is_listing=True)
    assert counts(register) == {"RETRYING": 1}
    register.note_results([f"{WORKSPACE}/a"], is_listing=False)
    assert counts(register) == {"UNKNOWN": 1}
    register.note([event("a", TaskEventType.FAILED, time.time())])
    assert counts(register) == {"FAILED": 1}


# --- bounds


def test_of_too_many_tasks_those_that_are_done_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts stay right, also of what goes on, whether events tell of it or keys."""
    monkeypatch.setattr(module, "_MAX_RUN_BYTES", 10_000)
    register, _, _ = made()
    for number in range(300):
        register.note([event(f"s/{number}", TaskEventType.STARTED, 1)])
        register.note_results([f"{WORKSPACE}/s/{number}"], is_listing=False)
        if number % 3:
            register.note([event(f"s/{number}", TaskEventType.SUCCEEDED, 2, "0")])
    known = counts(register)
    assert (known.pop("SUCCEEDED"), sum(known.values()), sorted(known)) == (200, 100, ["RUNNING", "UNKNOWN"])
    ids = [f"{NESTED}/s/{number}" for number in range(300)]
    for _ in range(2):
        register.begin_listing()
        register.note_results(ids, is_listing=True)
    register.note_results([f"{NESTED}/t"], is_listing=False)
    assert counts(register, OTHER) == {"UNKNOWN": 301}
    assert register.size < 40_000


def test_memory_is_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of which nothing was heard for the longest time gives way; made-up tasks that never end do, too."""
    monkeypatch.setattr(module, "_MAX_BYTES", 20_000)
    monkeypatch.setattr(module, "_MAX_OPEN", 10)
    register, _, _ = made()
    register.note([event(f"{NESTED}/{number}", TaskEventType.SUCCEEDED, 1, "0") for number in range(50)])
    register.note([event(f"s/{number}", TaskEventType.SUCCEEDED, 1, "0") for number in range(80)])
    register.note([event("s/1", TaskEventType.SUCCEEDED, 1, "0")])
    assert (counts(register), counts(register, OTHER)) == ({"SUCCEEDED": 80}, {"SUCCEEDED": 50})
    register.note([event(f"t/{number}", TaskEventType.STARTED, number + 1) for number in range(1_000)])
    assert register.size <= 20_000
    assert counts(register)["SUCCEEDED"] == 80


# --- what is shown


@pytest.mark.anyio
async def test_it_is_shown_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows the run is told once of a thousand tasks, and only of the runs that changed."""
    monkeypatch.setattr(module, "_PAUSE", 0.05)
    register, model, observations = made()
    told: list[Change] = []
    model.listen(lambda _, changes: told.extend(changes))
    async with register.showing():
        for number in range(1_000):
            register.note([event(f"s/{number}", TaskEventType.SUCCEEDED, 1, "101")])
        await until(lambda: shown(observations) is not None)
        assert [(change.key.id, change.observed) for change in told] == [(RUN, True)]
        register.note([event("a", TaskEventType.STARTED, 1)])
        await until(lambda: len(told) > 1)
    known = shown(observations)
    assert known is not None
    assert (known.failed, known.counts) == (1_000, {TaskStatus.FAILED: 1_000, TaskStatus.RUNNING: 1})


@pytest.mark.anyio
async def test_a_long_read_sees_one_state() -> None:
    """Nothing is shown until it has ended."""
    register, model, observations = made()
    async with register.showing():
        async with model.long_reads.reading(None):
            register.note([event("a", TaskEventType.STARTED, 1)])
            for _ in range(10):
                await asyncio.sleep(0)
            assert shown(observations) is None
        await until(lambda: shown(observations) is not None)


@pytest.mark.anyio
async def test_it_is_forgotten_with_the_run() -> None:
    """And begins anew where the run comes back; the other run keeps its own."""
    register, model, observations = made()
    async with register.showing():
        register.note([event("a", TaskEventType.STARTED, 1), event(f"{NESTED}/a", TaskEventType.STARTED, 1)])
        await until(lambda: shown(observations) is not None)
        model.apply([gone(EntityKind.RUN, RUN)])
        await until(lambda: observations.run(RUN) == RunObservation())
        assert shown(observations, OTHER) is not None
        register.note([event("a", TaskEventType.STARTED, 2)])
        model.apply([entry(run(1, WORKSPACE))])
        assert register.progress(RUN) is None
        register.note([event("b", TaskEventType.STARTED, 3)])
        assert counts(register) == {"RUNNING": 1}
