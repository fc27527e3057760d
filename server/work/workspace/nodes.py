"""The directories of a workspace that exist and may still change: a tree that is pruned as tasks are done."""

from __future__ import annotations

import re

from server.work.workspace.directory import Version
from server.work.workspace.layout import Group, safe_name
from server.work.workspace.tasks import TaskTable

_NESTED_RUN = re.compile(r"\d{8}-\d{6}$")
_MAX_DEPTH = 12
"""Levels of directories below that of a step."""
_UNFORESEEN = (-1, -1)


class Node:
    """A directory."""

    __slots__ = ("children", "depth", "end", "first", "group", "listed_at", "modified", "path", "step", "version")

    def __init__(self, path: str, step: int, group: Group | None, tasks: tuple[int, int], depth: int) -> None:
        self.path = path
        """Below the workspace."""
        self.step = step
        """-1 for the workspace itself."""
        self.group = group
        self.first, self.end = tasks
        """The indexes of its tasks; -1 where they were not foreseen."""
        self.depth = depth
        """Below the directory of its group, or of its step where it has no group."""
        self.children: dict[str, Node] = {}
        self.modified = -1
        """Nanoseconds: its time when it was listed."""
        self.listed_at = 0.0
        self.version: Version | None = None
        """Of its status file, as it was read."""

    @property
    def is_task(self) -> bool:
        """Whether it is the directory of one task that was foreseen, and of nothing else."""
        return self.group is not None and self.first >= 0 and self.depth == len(self.group.samples.sizes)

    @property
    def may_be_condensed(self) -> bool:
        """Whether its status file may tell of tasks below it."""
        return self.first < 0 or self.depth == 0


class Nodes:
    """Finds out what the directories of a run are."""

    def __init__(self, table: TaskTable) -> None:
        self._table = table
        self._layout = table.layout
        self._steps = {safe_name(step.name): number for number, step in enumerate(table.layout.spec.steps)}

    def root(self) -> Node:
        return Node("", -1, None, _UNFORESEEN, 0)

    def child(self, node: Node, name: str) -> Node | None:
        """None for a directory that is not one of tasks."""
        path = f"{node.path}/{name}" if node.path else name
        if node.step < 0:
            step = self._steps.get(name)
            return None if step is None else self._of_group(path) or Node(path, step, None, _UNFORESEEN, 0)
        if node.depth >= _MAX_DEPTH or _NESTED_RUN.search(name):
            return None
        is_combination = node.group is None and node.depth == 0
        foreseen = self._of_group(path) if is_combination else _of_samples(node, name, path)
        if foreseen is None and (is_combination or (name.isascii() and name.isdecimal())):
            return Node(path, node.step, node.group, _UNFORESEEN, node.depth + 1)
        return foreseen

    def is_settled(self, node: Node) -> bool:
        """Whether nothing of it is looked at any more."""
        if node.first >= 0:
            return self._table.settled.find(0, node.first, node.end) < 0
        index = self._table.unforeseen(node.path)
        return index is not None and not node.children and self._table.settled[index] == 1

    def _of_group(self, path: str) -> Node | None:
        group = self._layout.by_directory.get(path)
        if group is None:
            return None
        is_foreseen = not group.uses_samples or self._layout.sample_count is not None
        return Node(path, group.step, group, (group.first, group.end) if is_foreseen else _UNFORESEEN, 0)


def _of_samples(node: Node, name: str, path: str) -> Node | None:
    group = node.group
    if group is None or node.first < 0:
        return None
    found = group.samples.child(node.depth, node.first - group.first, node.end - group.first, name)
    if found is None:
        return None
    return Node(path, node.step, group, (found[0] + group.first, found[1] + group.first), node.depth + 1)
