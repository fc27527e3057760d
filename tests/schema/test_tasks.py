"""Steps and tasks of a run: the right ones, in the right order, by page, and no more work than that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema import value_keys
from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from server.database import slices
from server.database.json_text import is_same_json
from server.database.merlin_database import MerlinDatabase
from server.database.run_tasks import RunTask, read_task_id, task_id
from server.database.workspaces import LogStream, Progress, Source, Task, TaskStatus
from tests.support.asking import ask, execute
from tests.support.compiler import UNLIMITED
from tests.support.made_up_workspaces import (
    AS_OF,
    MadeUp,
    MadeUpReader,
    TaskColumns,
    observed,
    sampled,
    step_of,
    workspace_of,
)
from tests.support.records import run, uid
from tests.support.subscribers import copy_of
from tests.support.task_reference import FILTERS, ORDERS, holds, in_order, workspaces

pytestmark = pytest.mark.anyio

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
SCHEMA = make_schema()
COMPILED, PLAIN = Engine(SCHEMA, UNLIMITED), Engine(SCHEMA, UNLIMITED, compiled=False)
RUN = uid(1)
TASKS = """
query ($run: ID!, $filter: TaskFilter, $order: TaskOrder, $first: Int, $after: String, $last: Int, $before: String) {
  run(id: $run) {
    tasks(filter: $filter, orderBy: $order, first: $first, after: $after, last: $last, before: $before) {
      totalCount nodes { id step path status returnCode restarts runTime sampleIndex workers parameters }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
}
"""
WAITING, RUNNING, SUCCEEDED, FAILED = (
    TaskStatus.WAITING,
    TaskStatus.RUNNING,
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
)


@pytest.fixture
async def database() -> MerlinDatabase:
    return copy_of(run(1), run(2))


def observe(database: MerlinDatabase, workspace: MadeUp) -> None:
    database.observations.set_runs({RUN: observed(workspace)})


# --- against plain Python ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def answered(database: MerlinDatabase, engine: Engine, **variables: Any) -> bytes:
    context = Context(database, "1", Role.READ)
    return (await engine.query(engine.parse(TASKS), {"run": RUN, **variables}, context)).encoded


@settings(SLOW, max_examples=60)
@given(workspaces(), FILTERS, ORDERS, st.integers(1, 4), st.booleans())
def test_pages_are_what_plain_python_finds(
    runner: asyncio.Runner,
    workspace: MadeUp,
    said: dict[str, Any],
    order: dict[str, Any] | None,
    size: int,
    is_forward: bool,
) -> None:
    """By every filter and order, forward and backward, compiled and by graphql-core in the same bytes."""
    database = copy_of(run(1))
    observe(database, workspace)
    expected = [task.path for task in in_order([task for task in workspace.tasks if holds(said, task)], order)]
    found: list[str] = []
    cursor, has_more = None, True
    while has_more:
        span = {"first": size, "after": cursor} if is_forward else {"last": size, "before": cursor}
        given = {"filter": said, "order": order, **span}
        encoded = runner.run(answered(database, COMPILED, **given))
        assert encoded == runner.run(answered(database, PLAIN, **given))
        page = json.loads(encoded)["data"]["run"]["tasks"]
        assert page["totalCount"] == len(expected)
        paths = [node["path"] for node in page["nodes"]]
        found = [*found, *paths] if is_forward else [*paths, *found]
        cursor = page["pageInfo"]["endCursor" if is_forward else "startCursor"]
        has_more = page["pageInfo"]["hasNextPage" if is_forward else "hasPreviousPage"]
    assert found == expected


async def test_a_walk_goes_on_while_tasks_change(database: MerlinDatabase) -> None:
    """In the order of the specification each is seen once; by status, those that did not change."""
    made = workspace_of(a=[WAITING] * 3, b=[WAITING] * 6)
    for order in (None, {"field": "STATUS"}):
        seen: list[str] = []
        workspace, cursor, has_more = made, None, True
        while has_more:
            observe(database, workspace)
            page = (await ask(database, TASKS, run=RUN, order=order, first=2, after=cursor))["run"]["tasks"]
            seen += [node["path"] for node in page["nodes"]]
            cursor, has_more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
            workspace = workspace.with_tasks(Task("a", "a/0", RUNNING), Task("b", "b/0", FAILED))
        unchanged = [task.path for task in made.tasks if task.path not in ("a/0", "b/0")]
        assert [path for path in seen if path in unchanged] == unchanged
        if order is None:
            assert seen == [task.path for task in made.tasks]


async def test_cursors_of_something_else_are_refused(database: MerlinDatabase) -> None:
    """Of another order, or of runs: by a message that says what to pass."""
    observe(database, workspace_of(a=[WAITING] * 3))
    page = (await ask(database, TASKS, run=RUN, first=1, order={"field": "STATUS"}))["run"]["tasks"]
    runs = (await ask(database, "{ runs(first: 1) { pageInfo { endCursor } } }"))["runs"]
    for cursor in (page["pageInfo"]["endCursor"], runs["pageInfo"]["endCursor"], "x"):
        (error,) = (await execute(database, TASKS, {"run": RUN, "after": cursor})).errors
        assert error.message.startswith("after: ")
        assert error.extensions["code"] == "BAD_USER_INPUT"


# --- no more work than that --------------------------------------------------------------------------------------


async def test_a_page_makes_only_its_tasks(database: MerlinDatabase) -> None:
    """Of 10,000, also where it is filtered by status or step, or ordered by a column."""
    tasks = TaskColumns(sampled("sim", [FAILED if index % 100 == 0 else SUCCEEDED for index in range(10_000)]))
    database.observations.set_runs({RUN: observed(MadeUp([step_of("a", []), step_of("sim", tasks)]))})
    questions: list[dict[str, Any]] = [
        {},
        {"last": 50},
        {"filter": {"status": {"eq": "FAILED"}}},
        {"filter": {"not": {"or": [{"status": {"in": ["SUCCEEDED"]}}, {"step": {"startsWith": "b"}}]}}},
        {"order": {"field": "STATUS", "direction": "DESC"}},
        {"order": {"field": "SEVERITY", "direction": "DESC"}},
        {"filter": {"step": {"eq": "a"}, "path": {"contains": "9"}}},
    ]
    for question in questions:
        tasks.made = 0
        await ask(database, TASKS, run=RUN, **question)
        assert tasks.made <= 50, question
    await ask(database, TASKS, run=RUN, filter={"status": {"eq": "FAILED"}, "path": {"endsWith": "00"}})
    assert tasks.made <= 150


async def test_each_combination_is_judged_once(database: MerlinDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else a filter tests in columns; only the tasks that pass are looked at for the rest of it."""
    judged = 0

    def counted(*values: Any) -> bool:
        nonlocal judged
        judged += 1
        return is_same_json(*values)

    monkeypatch.setattr(value_keys, "is_same_json", counted)
    combinations = [{"X": number} for number in range(10)]
    tasks = TaskColumns(
        Task("sim", f"sim/{index}", FAILED if index % 100 == 0 else SUCCEEDED, parameters=combinations[index // 1000])
        for index in range(10_000)
    )
    database.observations.set_runs({RUN: observed(MadeUp([step_of("sim", tasks)]))})
    third, failed = {"parameter": {"key": "X", "eq": 3}}, {"status": {"eq": "FAILED"}}
    for found, made, said in (
        (1_000, 50, third),
        (10, 10, {**third, **failed}),
        (9_010, 50, {"or": [{"not": third}, failed]}),
        (1, 11, {"and": [failed, third, {"path": {"endsWith": "3500"}}]}),
    ):
        judged = tasks.made = 0
        page = (await ask(database, TASKS, run=RUN, filter=said))["run"]["tasks"]
        assert page["totalCount"] == found
        assert judged <= 10 * len(TaskStatus) + 10, said
        assert tasks.made <= made, said


async def test_a_filter_of_parameters_says_what_is_sought(database: MerlinDatabase) -> None:
    """A key alone, or a number that no parameter can have, is refused by a message that says so."""
    observe(database, workspace_of(a=[WAITING]))
    digits = '{ run(id: "%s") { tasks(filter: {parameter: {key: "X", eq: 0.12345678901234567890}}) { totalCount } } }'
    for text, said, message in (
        (TASKS, {"key": "X"}, "filter.parameter: pass `eq` or `exists` beside the key."),
        (TASKS, {"key": "X", "exists": None}, "filter.parameter.exists: null has no meaning here; leave the key out."),
        (digits % RUN, None, "filter.parameter.eq: no parameter has the number 0.12345678901234567890, which can't be"),
    ):
        variables = None if said is None else {"run": RUN, "filter": {"parameter": said}}
        (error,) = (await execute(database, text, variables)).errors
        assert error.message.startswith(message)
        assert error.extensions["code"] == "BAD_USER_INPUT"


async def test_a_search_among_many_tasks_lets_others_be_answered(
    database: MerlinDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done in slices, here as short as can be, and counts as what it costs."""
    monkeypatch.setattr(slices, "STEP_SECONDS", 0.0)
    tasks = sampled("sim", [SUCCEEDED] * 100_000)
    database.observations.set_runs({RUN: observed(MadeUp([step_of("sim", tasks)]))})
    engine = Engine(SCHEMA)
    operation = engine.parse(TASKS)
    variables = {"run": RUN, "filter": {"path": {"contains": "77"}}, "order": {"field": "RUN_TIME"}}
    turn, turns = engine._slices.turn, 0

    async def counted() -> None:
        nonlocal turns
        turns += 1
        await turn()

    monkeypatch.setattr(engine._slices, "turn", counted)
    answer = await engine.query(operation, variables, Context(database, "1", Role.READ))
    assert turns > 100
    assert 3 * 100_000 / 10 <= answer.cost <= 1.5 * 3 * 100_000 / 10


async def test_sizes_follow_what_is_observed(database: MerlinDatabase) -> None:
    """What an operation costs depends on the largest workspace that is known now."""
    assert database.sizes.tasks_of_run == 0
    observe(database, workspace_of(a=[WAITING] * 3, b=[WAITING] * 5))
    sizes = database.sizes
    assert (sizes.steps_of_run, sizes.tasks_of_run, sizes.tasks_of_step) == (2, 8, 5)
    text = '{ run(id: "%s") { spec } }' % RUN  # noqa: UP031 - braces
    observe(database, replace(workspace_of(a=[WAITING]), spec="x" * 100_000))
    assert database.sizes.tasks_of_run == 1
    operation = COMPILED.parse(text)
    context = Context(database, "1", Role.READ)
    assert COMPILED._cost(operation, COMPILED._documents.variables(operation, None), context) >= 100_000 // 1024
    database.observations.set_runs({RUN: None})
    assert database.sizes.tasks_of_run == 0
    assert database.sizes.large == ()


# --- what is told ------------------------------------------------------------------------------------------------


STEPS = """
query ($run: ID!, $names: [String!]) {
  run(id: $run) {
    spec parameterValues sampleColumns sampleCount
    progress { total done failed fraction source asOf counts { status count } }
    stepRuns(names: $names) {
      name description dependsOn queue command usesSamples runTime { mean deviation min max }
      progress { total done counts { status count } }
      tasks(filter: {status: {eq: FAILED}}) { totalCount nodes { path elapsed } }
    }
  }
}
"""


async def test_steps_come_in_the_order_of_the_specification(database: MerlinDatabase) -> None:
    """With all that is known of them, and each with its own tasks."""
    sim = [Task("sim", "sim/0", FAILED, "MERLIN_SOFT_FAIL", 0, 2.0, 3.0), Task("sim", "sim/1", SUCCEEDED, run_time=4.0)]
    made = MadeUp(
        [step_of("z", sampled("z", [WAITING])), step_of("sim", sim, depends_on=("z",), description="Simulates.")],
        spec="study: []",
        parameter_values={"X": (1, 2)},
        sample_columns=("X0",),
        sample_count=2,
    )
    observe(database, made)
    told = (await ask(database, STEPS, run=RUN))["run"]
    assert told["spec"] == "study: []"
    assert (told["parameterValues"], told["sampleColumns"], told["sampleCount"]) == ({"X": [1, 2]}, ["X0"], 2)
    progress = told["progress"]
    assert (progress["total"], progress["done"], progress["failed"]) == (3, 2, 1)
    assert progress["fraction"] == pytest.approx(2 / 3)
    assert (progress["source"], progress["asOf"]) == ("WORKSPACE_FILES", AS_OF.isoformat())
    assert [one["status"] for one in progress["counts"]] == list(TaskStatus)
    assert [one["count"] for one in progress["counts"]] == [1, 0, 0, 1, 1, 0, 0, 0]
    first, second = told["stepRuns"]
    assert (first["name"], first["runTime"], first["tasks"]["totalCount"]) == ("z", None, 0)
    assert second["runTime"] == {"mean": 3.0, "deviation": 1.0, "min": 2.0, "max": 4.0}
    assert (second["dependsOn"], second["description"]) == (["z"], "Simulates.")
    assert second["tasks"] == {"totalCount": 1, "nodes": [{"path": "sim/0", "elapsed": 3.0}]}
    (only,) = (await ask(database, STEPS, run=RUN, names=["sim", "nothing"]))["run"]["stepRuns"]
    assert only == second


async def test_nothing_known_is_null_or_empty(database: MerlinDatabase) -> None:
    """Progress alone may be known, as from task events."""
    told = (await ask(database, STEPS, run=RUN))["run"]
    assert told == dict.fromkeys(told, None) | {"stepRuns": []}
    assert (await ask(database, TASKS, run=RUN))["run"]["tasks"]["totalCount"] == 0
    progress = Progress({SUCCEEDED: 2}, None, Source.CELERY_EVENTS, AS_OF)
    database.observations.set_runs({RUN: replace(database.observations.run(RUN), progress=progress)})
    told = (await ask(database, STEPS, run=RUN))["run"]
    assert (told["progress"]["total"], told["progress"]["fraction"], told["progress"]["done"]) == (None, None, 2)
    assert told["stepRuns"] == []


@given(st.text(), st.text())
def test_an_id_names_its_task(run_id: str, path: str) -> None:
    """Whatever its path holds; an id of anything else names none."""
    run_id = run_id.replace("/", "")
    assert read_task_id(task_id(run_id, path)) == (run_id, path)
    assert read_task_id(path) is None or task_id(*read_task_id(path) or ("", "")) == path


async def test_a_task_is_found_by_its_id(database: MerlinDatabase) -> None:
    """None by the id of another run, of no task, or of no run."""
    observe(database, workspace_of(a=[WAITING, FAILED]))
    text = "query ($id: ID!) { task(id: $id) { id path status } }"
    id_ = RunTask(RUN, Task("a", "a/1", FAILED)).id
    assert (await ask(database, text, id=id_))["task"] == {"id": id_, "path": "a/1", "status": "FAILED"}
    for other in (task_id(uid(2), "a/1"), task_id(RUN, "a/2"), task_id(uid(9), "a/1"), RUN, "x", ""):
        assert (await ask(database, text, id=other))["task"] is None


# --- logs --------------------------------------------------------------------------------------------------------


OUTPUT = """
query ($run: ID!, $last: Int! = 65536) {
  run(id: $run) { tasks { nodes { output(last: $last) { text size start end isWhole modifiedAt } } } }
}
"""


async def test_the_end_of_a_log_is_read(database: MerlinDatabase) -> None:
    """So many bytes of it; null where there is none."""
    workspace = workspace_of(a=[FAILED, WAITING])
    reader = MadeUpReader(database.observations, {RUN: workspace})
    reader.logs["a/0", LogStream.STDOUT] = "one\ntwo\n"
    observe(database, workspace)
    one, other = (await ask(database, OUTPUT, run=RUN))["run"]["tasks"]["nodes"]
    place = {"size": 8, "start": 0, "end": 8, "isWhole": True}
    assert one["output"] == {"text": "one\ntwo\n", **place, "modifiedAt": AS_OF.isoformat()}
    assert other["output"] is None
    one, _ = (await ask(database, OUTPUT, run=RUN, last=4))["run"]["tasks"]["nodes"]
    assert (one["output"]["text"], one["output"]["start"], one["output"]["isWhole"]) == ("two\n", 4, False)


@pytest.mark.parametrize("last", [0, -1, 2**20 + 1])
async def test_how_much_of_a_log_is_bounded(database: MerlinDatabase, last: int) -> None:
    """The refusal says how much is possible."""
    observe(database, workspace_of(a=[FAILED]))
    (error,) = (await execute(database, OUTPUT, {"run": RUN, "last": last})).errors
    assert error.message == f"last: pass 1 to 1048576 bytes, not {last}."
    assert error.extensions["code"] == "BAD_USER_INPUT"


async def test_logs_cost_what_they_may_take(database: MerlinDatabase) -> None:
    """A point for each kibibyte of each task of a page, by default and by `last`."""
    observe(database, workspace_of(a=[FAILED] * 10))
    operation = COMPILED.parse(OUTPUT)
    context = Context(database, "1", Role.READ)

    def cost(**variables: Any) -> int:
        return COMPILED._cost(operation, COMPILED._documents.variables(operation, {"run": RUN, **variables}), context)

    assert 10 * 64 <= cost() <= 10 * 75
    assert cost(last=2**20) - cost(last=2**10) == 10 * 1023
