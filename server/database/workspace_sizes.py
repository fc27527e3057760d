"""The sizes of workspaces: how many steps and tasks they have, and how long their texts are, at most."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from server.database.workspaces import Workspace

LARGE = 1024
"""Bytes. A shorter text is not noted, as in `large_values`."""
_TEXTS = ("command", "depends_on", "description")
"""The fields of steps that may be long."""


class LargeText(NamedTuple):
    """What the long values of one field take in an answer, in bytes."""

    largest: int
    total: int
    """Of all runs together."""


class WorkspaceSizes(NamedTuple):
    """Of one workspace, or the largest of several."""

    steps: int = 0
    tasks: int = 0
    """Of all steps of a run together."""
    tasks_of_step: int = 0
    sample_columns: int = 0
    large: Mapping[str, LargeText] = {}
    """By the field, such as `step.command`."""


def sizes_of_workspace(workspace: Workspace) -> WorkspaceSizes:
    steps = workspace.steps
    tasks = [len(step.tasks) for step in steps]
    texts: dict[str, Sequence[Any]] = {
        "workspace.spec": [workspace.spec],
        "workspace.parameter_values": [workspace.parameter_values],
        "workspace.sample_columns": [workspace.sample_columns],
        **{f"step.{name}": [getattr(step, name) for step in steps] for name in _TEXTS},
    }
    found = {name: _large(values) for name, values in texts.items()}
    large = {name: text for name, text in found.items() if text.largest > LARGE}
    columns = len(workspace.sample_columns or ())
    return WorkspaceSizes(len(steps), sum(tasks), max(tasks, default=0), columns, large)


def largest_of(sizes: Iterable[WorkspaceSizes]) -> WorkspaceSizes:
    """The most that one of them has, and the bytes that the long values of all of them have together."""
    largest = WorkspaceSizes()
    large: dict[str, LargeText] = {}
    for one in sizes:
        for name, text in one.large.items():
            known = large.get(name, LargeText(0, 0))
            large[name] = LargeText(max(known.largest, text.largest), known.total + text.total)
        largest = WorkspaceSizes(
            max(largest.steps, one.steps),
            max(largest.tasks, one.tasks),
            max(largest.tasks_of_step, one.tasks_of_step),
            max(largest.sample_columns, one.sample_columns),
        )
    return largest._replace(large=large)


def _large(values: Iterable[Any]) -> LargeText:
    sizes = list(map(_size_of, values))
    return LargeText(max(sizes, default=0), sum(sizes))


def _size_of(value: Any) -> int:
    """Bytes of its JSON in UTF-8."""
    try:
        return len(orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:  # half of a surrogate pair
        return len(json.dumps(value, default=repr))
