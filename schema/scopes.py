"""What the response to an operation depends on, by the fields that it selects and the filters that it uses."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from schema.operation import Scope

OF_FILES = frozenset(
    {
        "Run.progress",
        "Run.stepRuns",
        "Run.tasks",
        "Run.spec",
        "Run.parameterValues",
        "Run.sampleColumns",
        "Run.sampleCount",
        "Run.sampleRows",
        "Query.task",
    }
)
"""Fields that show what stands in the workspace of a run."""
_READ = frozenset({"Run.sampleRows", "Task.output"})
"""Fields that read a file when they are asked for."""
OF_NODES = frozenset({"Query.node", "Query.nodes"})
"""Fields that may show a task, if they are given the id of one."""
_OBSERVED = OF_FILES | {
    "Run.hasFailed",
    "Run.isStuck",
    "PhysicalWorker.isAlive",
    "PhysicalWorker.lastSeenAt",
    "PhysicalWorker.livePid",
    "PhysicalWorker.activeTasks",
    "PhysicalWorker.processedTasks",
    "PhysicalWorker.loadAverage",
    "Query.liveWorkers",
    "QueueCount.waiting",
    "QueueCount.consumers",
    "Database.sources",
}
"""Fields that show what this server itself has seen."""
SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        "Viewer.budget": Scope.CLIENT,
        "PhysicalWorker.heartbeatAge": Scope.CLOCK,
        **dict.fromkeys(sorted(_READ), Scope.CLOCK),
        "Query.integrity": Scope.SERVER,
        **dict.fromkeys(sorted(_OBSERVED - _READ), Scope.SERVER),
        "Database.revision": Scope.REVISION,
    }
)
"""Fields whose values depend on more than the content of the database, the most dependent ones first."""
_OBSERVED_KEYS = ("isStuck", "hasFailed")
"""Keys of filters that select by what this server has seen."""
_TASK_ID = re.compile(r"[\w-]{48}L[w-z0-9_-]")
"""In the id of a task: 36 characters of a UUID and a slash, as `run_tasks.task_id` encodes them."""


def scope_of(fields: Collection[str], text: str) -> Scope:
    """The scope of an operation without its variables; `fields`: the coordinates of those that it selects."""
    scope = next((scope for field, scope in SCOPES.items() if field in fields), Scope.CONTENT)
    return with_filters(scope, text)


def with_filters(scope: Scope, text: str) -> Scope:
    """The scope of an operation with filters and ids in a text, its variables as JSON or its document."""
    if scope.is_stored and (any(key in text for key in _OBSERVED_KEYS) or names_task(text)):
        return Scope.SERVER
    return scope


def names_task(text: str) -> bool:
    """Whether the id of a task may stand in a text; where none does, no node is a task."""
    return _TASK_ID.search(text) is not None
