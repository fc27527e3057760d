"""The text of `merlin-graphql status`: a pure function of what `status_documents.STATUS` asks for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from server.commands.terminal import Colour, Column, Line, Span, Style, table
from server.database.workspaces import Source, TaskStatus

_LABEL = 11
"""Columns that the labels of the header take."""
_RUN_COLOURS: Mapping[str, Colour] = {
    "RUNNING": Colour.CYAN,
    "COMPLETED": Colour.GREEN,
    "FAILED": Colour.RED,
    "CANCELLED": Colour.YELLOW,
}
_UNKNOWN = "?"
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_TITLES: Mapping[TaskStatus, str] = {
    TaskStatus.FAILED: "failed",
    TaskStatus.RUNNING: "running",
    TaskStatus.RETRYING: "retrying",
    TaskStatus.WAITING: "waiting",
    TaskStatus.CANCELLED: "cancelled",
    TaskStatus.DRY_RUN: "dry run",
    TaskStatus.UNKNOWN: "unknown",
}
"""The columns of a step's tasks. Those that ended well are in the column of the done ones."""
_ALWAYS = (TaskStatus.FAILED, TaskStatus.RUNNING, TaskStatus.WAITING)
"""The columns that are shown even if they hold zeros only."""
_MISSING: Mapping[Source, str] = {
    Source.WORKSPACE_FILES: "Steps and tasks are unknown: no workspace is in reach: pass --workspace-root DIR{place}.",
    Source.CELERY_EVENTS: "Whether workers are alive is unknown: no broker is listened to: pass --broker URL{place}.",
    Source.BROKER_QUEUES: "What waits in the queues is unknown: no broker is asked: pass --broker URL{place}.",
}


def text_of(data: Mapping[str, Any], style: Style, *, of_server: bool = False) -> list[str]:
    """The lines for a run that is there. `of_server`: whether settings belong to a server that was asked."""
    run = data["run"]
    lines = [*_header(run, style)]
    for part in (_steps(run, style), _tasks(run, style), _workers(data, style), _queues(data, style)):
        if part:
            lines += [(), *part]
    notes = _notes(data, " to the server" if of_server else "")
    lines += [(), *([Span(part, Colour.YELLOW)] for note in notes for part in _wrapped(note, style.width))]
    while not lines[-1]:
        lines.pop()
    return style.painted(lines)


# --- the run


def _header(run: Mapping[str, Any], style: Style) -> Iterator[Line]:
    room = max(style.width - _LABEL, 1)
    yield _labelled("Run", Span(run["id"]))
    if run["study"] is not None:
        yield _labelled("Study", Span(style.shortened(run["study"]["name"], room)))
    yield _labelled("Workspace", Span(style.shortened(run["workspace"], room)))
    yield _labelled("Status", Span(run["status"], _RUN_COLOURS.get(run["status"])), Span(_since(run, style)))
    for truth in _truths(run, style):
        for part in _wrapped(truth, room):
            yield _labelled("", Span(part, Colour.RED))
    for number, part in enumerate(_wrapped(_times(run, style), room)):
        yield _labelled("" if number else "Time", Span(part))
    if run["progress"] is not None:
        yield _progress(run["progress"], style)
        yield _labelled("As of", Span(f"{_time(run['progress']['asOf'], style)} ({run['progress']['source']})"))


def _labelled(label: str, *spans: Span) -> Line:
    return [Span(label.ljust(_LABEL)), *spans]


def _since(run: Mapping[str, Any], style: Style) -> str:
    """Since when its status stands, where a server saw that."""
    history = run["statusHistory"]
    return f" since {_time(history[-1]['at'], style)}" if history and history[-1]["status"] == run["status"] else ""


def _truths(run: Mapping[str, Any], style: Style) -> Iterator[str]:
    """What is true beside the status: Merlin overwrites FAILED, and leaves runs RUNNING that nobody works on."""
    if run["hasFailed"] and run["status"] != "FAILED":
        times = [_time(change["at"], style) for change in run["statusHistory"] if change["status"] == "FAILED"]
        yield f"It failed at {times[-1]}." if times else "Tasks of it have failed."
    if run["isStuck"]:
        yield "It is stuck: nothing waits, nothing is worked on, and no worker is alive for it."


def _times(run: Mapping[str, Any], style: Style) -> str:
    parts = [
        f"{word} {_time(run[key], style)}"
        for key, word in (("startedAt", "started"), ("finishedAt", "finished"))
        if run[key] is not None
    ]
    if not parts and run["launchedAt"] is not None:
        parts = [f"launched {_time(run['launchedAt'], style)}"]
    if run["duration"] is not None:
        parts.append(f"took {_seconds(run['duration'])}")
    return ", ".join(parts)


def _progress(progress: Mapping[str, Any], style: Style) -> Line:
    done = f"{_done(progress)} done"
    failed = f", {progress['failed']} failed" if progress["failed"] else ""
    texts = [Span(done), Span(failed, Colour.RED)]
    bar = min(30, style.width - _LABEL - 2 - sum(len(text.text) for text in texts))
    if progress["fraction"] is not None and bar >= _LABEL:
        texts[:0] = [Span(style.bar(progress["fraction"], bar), _bar_colour(progress)), Span("  ")]
    return _labelled("Tasks", *texts)


def _bar_colour(progress: Mapping[str, Any]) -> Colour:
    return Colour.RED if progress["failed"] else Colour.GREEN


def _done(progress: Mapping[str, Any]) -> str:
    """As `12/17`; `12` without a total."""
    total = progress["total"]
    return str(progress["done"]) if total is None else f"{progress['done']}/{total}"


# --- its steps, tasks, workers and queues


def _steps(run: Mapping[str, Any], style: Style) -> list[Line]:
    steps: Sequence[Mapping[str, Any]] = run["stepRuns"]
    if not steps:
        return []
    counted = [{it["status"]: it["count"] for it in step["progress"]["counts"]} for step in steps]
    columns = [Column("done", [Span(_done(step["progress"])) for step in steps], is_number=True)]
    for status, title in _TITLES.items():
        counts = [counts.get(status, 0) for counts in counted]
        if status in _ALWAYS or any(counts):
            is_bad = status is TaskStatus.FAILED
            cells = [Span(str(count), Colour.RED if is_bad and count else None) for count in counts]
            columns.append(Column(title, cells, is_number=True))
    if any(step["runTime"] is not None for step in steps):
        times = [Span("" if step["runTime"] is None else _seconds(step["runTime"]["mean"])) for step in steps]
        columns.append(Column("mean time", times, is_number=True))
    names = [Span(step["name"], Colour.RED if step["progress"]["failed"] else None) for step in steps]
    return table(style, Column("step", names), columns, [step["progress"]["fraction"] for step in steps])


def _tasks(run: Mapping[str, Any], style: Style) -> list[Line]:
    tasks = run.get("tasks")
    if tasks is None:
        return []
    nodes: Sequence[Mapping[str, Any]] = tasks["nodes"]
    if not nodes:
        return [[Span("No task has this status." if run["stepRuns"] else "No task is known.")]]
    columns = [
        Column("status", [Span(task["status"], _task_colour(task["status"])) for task in nodes]),
        Column("return code", [Span(task["returnCode"] or "") for task in nodes]),
        Column("restarts", [_number(task["restarts"], "") for task in nodes], is_number=True),
        Column(
            "time",
            [Span("" if task["runTime"] is None else _seconds(task["runTime"])) for task in nodes],
            is_number=True,
        ),
    ]
    lines = table(style, Column("task", [Span(task["path"]) for task in nodes]), columns)
    left = tasks["totalCount"] - len(nodes)
    return [*lines, [Span(f"and {left} more: --limit")]] if left > 0 else lines


def _task_colour(status: str) -> Colour | None:
    return {TaskStatus.FAILED.value: Colour.RED, TaskStatus.RETRYING.value: Colour.YELLOW}.get(status)


def _workers(data: Mapping[str, Any], style: Style) -> list[Line]:
    rows: list[tuple[str, Mapping[str, Any] | None, str]] = []
    for logical in data["run"]["workers"]:
        processes = logical["physicalWorkers"]["nodes"]
        rows += [(process["name"], process, process["status"]) for process in processes]
        if not processes:
            rows.append((logical["name"], None, "no process"))
    rows += [
        (worker["name"], worker, "no record")
        for worker in data["liveWorkers"]
        if worker["physicalWorker"] is None and worker["isAlive"]
    ]
    if not rows:
        return []
    columns = [
        Column("alive", [_alive(process, style) for _, process, _ in rows]),
        Column("active", [_told(process, "activeTasks") for _, process, _ in rows], is_number=True),
        Column("processed", [_told(process, "processedTasks") for _, process, _ in rows], is_number=True),
        Column("record", [Span(record) for _, _, record in rows]),
    ]
    return table(style, Column("worker", [Span(name) for name, _, _ in rows]), columns)


def _told(process: Mapping[str, Any] | None, key: str) -> Span:
    return _number(None if process is None else process[key])


def _alive(process: Mapping[str, Any] | None, style: Style) -> Span:
    if process is None or process["isAlive"] is None:
        return Span(_UNKNOWN)
    if process["isAlive"]:
        return Span("yes", Colour.GREEN)
    last = process["lastSeenAt"]
    return Span("no" if last is None else f"no, until {_time(last, style)}", Colour.RED)


def _queues(data: Mapping[str, Any], style: Style) -> list[Line]:
    names = data["run"]["queues"]
    if not names:
        return []
    known = {queue["queue"]: queue for queue in data["queues"]}
    queues = [known.get(name, {}) for name in names]
    columns = [
        Column("waiting", [_number(queue.get("waiting")) for queue in queues], is_number=True),
        Column("consumers", [_number(queue.get("consumers")) for queue in queues], is_number=True),
    ]
    return table(style, Column("queue", [Span(name) for name in names]), columns)


# --- what is missing


def _notes(data: Mapping[str, Any], place: str) -> Iterator[str]:
    """What this answer can't say, and why."""
    run, sources = data["run"], data["database"]["sources"]
    if data["database"]["staleSince"] is not None:
        yield "The database can't be reached: this is an old state of it."
    for source, text in _MISSING.items():
        if source not in sources:
            yield text.format(place=place)
    if Source.WORKSPACE_FILES in sources and not run["stepRuns"]:
        yield "Steps are unknown: the workspace is not below a --workspace-root, or not readable."
    if not run["statusHistory"]:
        yield "Since when is unknown: no server that writes has seen a change of its status."


# --- values


def _number(value: int | None, unknown: str = _UNKNOWN) -> Span:
    return Span(unknown if value is None else str(value))


def _time(text: str, style: Style) -> str:
    return datetime.fromisoformat(text).astimezone(style.zone).strftime("%Y-%m-%d %H:%M:%S")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=False)


def _seconds(seconds: float) -> str:
    """As `2.2s`, `3m20s`, `2h05m` or `3d04h`."""
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"
