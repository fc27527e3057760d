"""Answers of a server to the question of `merlin-graphql status`, as the contract has them."""

from __future__ import annotations

from typing import Any

from server.database.workspaces import Source, TaskStatus
from tests.support.records import uid

AS_OF = "2026-11-25T16:01:24.682000+00:00"


def progress(total: int | None = None, **counts: int) -> dict[str, Any]:
    """Of tasks with these statuses."""
    done = sum(counts.get(status, 0) for status in TaskStatus if status.is_done)
    return {
        "total": total,
        "done": done,
        "failed": counts.get("FAILED", 0),
        "fraction": None if total is None else done / total if total else 1.0,
        "source": "WORKSPACE_FILES",
        "asOf": AS_OF,
        "counts": [{"status": status.value, "count": counts.get(status, 0)} for status in TaskStatus],
    }


def step(name: str, mean: float | None = None, total: int | None = None, **counts: int) -> dict[str, Any]:
    run_time = None if mean is None else {"mean": mean, "deviation": 0.5, "min": mean, "max": mean}
    return {
        "name": name,
        "queue": "sim_q",
        "usesSamples": True,
        "progress": progress(total, **counts),
        "runTime": run_time,
    }


def task(path: str, status: str = "FAILED", **fields: Any) -> dict[str, Any]:
    return {
        "step": path.partition("/")[0],
        "path": path,
        "status": status,
        "returnCode": "MERLIN_SOFT_FAIL",
        "restarts": 0,
        "runTime": 1.5,
        "workers": ["simworkers"],
        **fields,
    }


def process(name: str, **fields: Any) -> dict[str, Any]:
    """A physical worker, or a live one."""
    return {
        "name": name,
        "status": "RUNNING",
        "isAlive": None,
        "lastSeenAt": None,
        "activeTasks": None,
        "processedTasks": None,
        "physicalWorker": None,
        **fields,
    }


def run(**fields: Any) -> dict[str, Any]:
    return {
        "id": uid(11),
        "workspace": "/studies/hello_20261125-160110",
        "status": "RUNNING",
        "isFinished": False,
        "study": {"name": "hello"},
        "launchedAt": "2026-11-25T16:01:10+00:00",
        "startedAt": None,
        "finishedAt": None,
        "duration": None,
        "hasFailed": False,
        "isStuck": None,
        "statusHistory": [],
        "progress": None,
        "stepRuns": [],
        "queues": [],
        "workers": [],
        **fields,
    }


def answer(run: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    return {
        "run": run,
        "liveWorkers": [],
        "queues": [],
        "database": {"sources": [source.value for source in Source], "staleSince": None, "serverVersion": "0.2.0"},
        **fields,
    }
