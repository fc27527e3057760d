"""Filters and orders of tasks at random, and what they mean in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from server.database.workspaces import Step, Task, TaskStatus
from tests.support.made_up_workspaces import MadeUp, TaskColumns, step_of

PARAMETERS: list[dict[str, Any]] = [{"X": 1, "Y": None}, {"X": 1.0, "Z": "1"}, {"X": True}, {"X": "1", "Y": 2}, {}]


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


COMBINATIONS = st.lists(st.tuples(nullable(st.sampled_from(PARAMETERS)), st.sampled_from([1, 2, 9])), max_size=3).map(
    lambda counted: [parameters for parameters, count in counted for _ in range(count)]
)


@st.composite
def workspaces(draw: st.DrawFn) -> MadeUp:
    """Steps with and without columns, tasks in any state: few and many of each combination of parameters."""
    steps: list[Step] = []
    for name in ("a", "sim", "Sim"):
        tasks = [
            Task(
                name,
                f"{name}/{index}",
                draw(st.sampled_from(TaskStatus)),
                draw(nullable(st.sampled_from(["MERLIN_SUCCESS", "MERLIN_SOFT_FAIL"]))),
                draw(nullable(st.integers(0, 2))),
                draw(nullable(st.sampled_from([0.0, 0.5, 1.25]))),
                workers=tuple(draw(st.lists(st.sampled_from(["w", "v"]), max_size=2))),
                parameters=parameters,
                sample_index=draw(nullable(st.integers(0, 3))),
            )
            for index, parameters in enumerate(draw(COMBINATIONS))
        ]
        steps.append(step_of(name, draw(st.sampled_from([list, TaskColumns]))(tasks)))
    return MadeUp(steps)


LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda value: {"status": {"eq": value}}, st.sampled_from([*TaskStatus]).map(str)),
    st.builds(lambda values: {"status": {"in": values}}, st.lists(st.sampled_from([*TaskStatus]).map(str))),
    st.builds(lambda values: {"status": {"notIn": values}}, st.lists(st.sampled_from([*TaskStatus]).map(str))),
    st.builds(
        lambda value, fold: {"step": {"eq": value, "ignoreCase": fold}}, st.sampled_from(["a", "sim"]), st.booleans()
    ),
    st.builds(lambda value: {"path": {"endsWith": value}}, st.sampled_from(["0", "/1", "x"])),
    st.builds(lambda value: {"returnCode": {"eq": value}}, nullable(st.just("MERLIN_SUCCESS"))),
    st.builds(lambda value: {"workers": {"containsAny": value}}, st.lists(st.sampled_from(["w", "x"]))),
    st.builds(lambda value: {"restarts": {"gt": value}}, st.integers(-1, 2)),
    st.builds(lambda value: {"sampleIndex": {"eq": value}}, st.integers(0, 3)),
    st.builds(
        lambda key, value: {"parameter": {"key": key, "eq": value}},
        st.sampled_from("XYZ"),
        st.sampled_from([None, 1, 1.0, True, "1", 2, [1]]),
    ),
    st.builds(lambda key, value: {"parameter": {"key": key, "exists": value}}, st.sampled_from("XYZ"), st.booleans()),
    st.just({}),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda values: {"or": values}, st.lists(inner, max_size=2)),
        st.builds(lambda values: {"and": values}, st.lists(inner, max_size=2)),
        st.builds(lambda value: {"not": value}, inner),
        st.builds(lambda one, other: {**one, **other}, inner, LEAVES),
    ),
    max_leaves=4,
)


def holds(said: dict[str, Any], task: Task) -> bool:
    """The meaning of a filter, in plain Python."""
    return all(_holds(key, value, task) for key, value in said.items())


def _holds(key: str, said: Any, task: Task) -> bool:  # noqa: C901, PLR0911 - one case, one return a key
    match key:
        case "and":
            return all(holds(one, task) for one in said)
        case "or":
            return any(holds(one, task) for one in said)
        case "not":
            return not holds(said, task)
        case "status":
            return _has_status(said, str(task.status))
        case "step":
            return bool(said["eq"] == (task.step.casefold() if said["ignoreCase"] else task.step))
        case "path":
            return task.path.endswith(said["endsWith"])
        case "returnCode":
            return bool(task.return_code == said["eq"])
        case "workers":
            return bool({*said["containsAny"]} & {*task.workers})
        case "parameter":
            return _has_parameter(said, task.parameters or {})
        case "restarts":
            return task.restarts is not None and bool(task.restarts > said["gt"])
        case _:
            return bool(task.sample_index == said["eq"])


def _has_status(said: dict[str, Any], status: str) -> bool:
    tests: dict[str, Callable[[Any], bool]] = {
        "eq": lambda value: status == value,
        "in": lambda values: status in values,
        "notIn": lambda values: status not in values,
    }
    return all(tests[name](value) for name, value in said.items())


def _has_parameter(said: dict[str, Any], parameters: Mapping[str, Any]) -> bool:
    """1 and 1.0 are one number, and neither is true."""
    if "exists" in said:
        return (said["key"] in parameters) is said["exists"]
    value, wanted = parameters.get(said["key"]), said["eq"]
    return isinstance(value, bool) is isinstance(wanted, bool) and bool(value == wanted)


SEVERITIES = ["SUCCEEDED", "DRY_RUN", "WAITING", "RUNNING", "CANCELLED", "UNKNOWN", "RETRYING", "FAILED"]


def in_order(tasks: list[Task], said: dict[str, Any] | None) -> list[Task]:
    values: dict[str, Callable[[tuple[int, Task]], Any]] = {
        "PATH": lambda one: one[0],
        "STATUS": lambda one: [*TaskStatus].index(one[1].status),
        "SEVERITY": lambda one: SEVERITIES.index(one[1].status),
        "RUN_TIME": lambda one: one[1].run_time,
        "RESTARTS": lambda one: one[1].restarts,
    }
    if said is None:
        return tasks
    value = values[said["field"]]
    valued = [one for one in enumerate(tasks) if value(one) is not None]
    is_descending = said.get("direction") == "DESC"
    found = sorted(valued, key=value, reverse=is_descending)  # stable in both directions
    return [task for _, task in found] + [one[1] for one in enumerate(tasks) if value(one) is None]


ORDERS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"field": st.sampled_from(["PATH", "STATUS", "SEVERITY", "RUN_TIME", "RESTARTS"])},
        optional={"direction": st.sampled_from(["ASC", "DESC"])},
    ),
)
