"""How long lists are at most, and how many records are searched for them, by the coordinates of fields."""

from __future__ import annotations

from collections.abc import Mapping

from server.database.integrity import ProblemKind, Severity
from server.database.models import RunStatus, WorkerStatus
from server.database.workspaces import TaskStatus

LENGTHS: Mapping[str, str | int] = {
    "Query.studies": "studies",
    "Query.runs": "runs",
    "Query.logicalWorkers": "logical_workers",
    "Query.physicalWorkers": "physical_workers",
    "Query.queues": "queues",
    "Query.liveWorkers": "live_workers",
    "Query.runCounts": len(RunStatus),
    "Query.physicalWorkerCounts": len(WorkerStatus),
    "Study.runs": "runs_of_study",
    "Study.runCounts": len(RunStatus),
    "Study.workers": "workers_of_study",
    "Run.workers": "workers_of_run",
    "Run.statusHistory": "changes_of_run",
    "LogicalWorker.runs": "runs_of_worker",
    "LogicalWorker.physicalWorkers": "instances_of_worker",
    "Run.stepRuns": "steps_of_run",
    "Run.tasks": "tasks_of_run",
    "StepRun.tasks": "tasks_of_step",
    "Progress.counts": len(TaskStatus),
    "IntegrityReport.counts": 2 * len(ProblemKind) * len(Severity),
}
"""How many entities a field has at most: the name of a size, or a number."""
SEARCHED: Mapping[str, str] = {
    "Query.runCounts": "runs",
    "Query.physicalWorkerCounts": "physical_workers",
    "Study.runCounts": "runs_of_study",
}
"""What a filter searches where that is not the list itself."""
NOT_INDEXED = frozenset({"Run.tasks", "StepRun.tasks"})
"""Lists of which each entity is tested or sorted."""
LOOKED_AT: Mapping[str, str] = {
    "Query.integrity": "records",
    "Study.runCounts": "runs_of_study",
    "Study.workers": "runs_of_study",
}
"""Records that are looked at even without a filter."""
