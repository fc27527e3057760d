"""Reads one workspace, again and again: all of it at first, then only what may have changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from server.database.files.workspace_roots import OutsideError, open_below
from server.database.workspaces import TaskStatus
from server.work.workspace import status_file
from server.work.workspace.content import WorkspaceContent
from server.work.workspace.directory import (
    UnreadableError,
    Version,
    directories_in,
    open_directory,
    open_regular,
    read_file,
    version_at,
    version_of,
)
from server.work.workspace.layout import Group, Layout, safe_name
from server.work.workspace.specification_files import SpecificationFiles
from server.work.workspace.status_file import Entry, Pieces
from server.work.workspace.tasks import TaskTable

COARSE: Final = 2.0
"""Seconds: a file system may count times so coarsely, so what changed less than that ago may have changed again."""
_LIST_AGAIN = 30.0
"""Seconds after which a directory is listed again though its time did not change."""
_COST_SHARE = 10
"""A condensed file is read again after as many times the time that it takes, since Merlin rewrites it whole."""
_NESTED_RUN = re.compile(r"\d{8}-\d{6}$")
_MAX_DEPTH = 12
"""Levels of directories below that of a step."""
_MAX_TOLD = 20
_STAYS = frozenset({TaskStatus.SUCCEEDED, TaskStatus.DRY_RUN})
"""A task that failed and was condensed may be at work again after `merlin restart`, with a file of its own."""


class _Node:
    """A directory that exists and that may still change."""

    __slots__ = (
        "children",
        "depth",
        "end",
        "first",
        "group",
        "listed_at",
        "modified",
        "name",
        "path",
        "step",
        "version",
    )

    def __init__(self, name: str, path: str, step: int, group: Group | None, first: int, end: int, depth: int) -> None:
        self.name = name
        self.path = path
        self.step = step
        self.group = group
        self.first = first
        """The indexes of its tasks, up to `end`; -1 where they were not foreseen."""
        self.end = end
        self.depth = depth
        """Below the directory of its group."""
        self.children: dict[str, _Node] = {}
        self.modified = -1
        self.listed_at = 0.0
        self.version: Version | None = None
        """Of its status file, as it was read."""

    @property
    def is_task(self) -> bool:
        """Whether it is the directory of one task that was foreseen, and of nothing else."""
        return self.group is not None and self.first >= 0 and self.depth == len(self.group.samples.sizes)


class Scanner:
    """Blocks; used by one thread at a time. `close` it."""

    def __init__(self, roots: Sequence[Path], workspace: str) -> None:
        self._roots = roots
        self.workspace = workspace
        self.calls = 0
        """To the file system, about."""
        self.problems: list[str] = []
        """What can't be read, each once."""
        self.is_outside = False
        self._files = SpecificationFiles(roots, self._tell)
        self._table: TaskTable | None = None
        self._root = _Node("", "", -1, None, -1, -1, 0)
        self._round: Generator[None, None, None] | None = None
        self._deadline = 0.0
        self._changed = False
        self._own_files: set[int] = set()
        """Tasks whose own status files were read."""
        self._read_again: set[int] = set()
        """Tasks of which a condensed file told something after that."""
        self._condensed_again: dict[str, float] = {}
        """When the condensed file of a group may be read again."""

    def advance(self, seconds: float) -> bool:
        """Goes on for about so long; whether that ended a round."""
        self._deadline = time.perf_counter() + seconds
        if self._round is None:
            self._round = self._look()
        try:
            next(self._round)
        except StopIteration:
            self._round = None
            return True
        except OutsideError:
            self.is_outside = True
        except OSError as error:
            self._tell(str(error))
        else:
            return False
        self._round = None
        return True

    def take_content(self) -> WorkspaceContent | None:
        """What is known after a round, if that differs from what was taken last."""
        if self._table is None or not self._changed:
            return None
        self._changed = False
        return self.content()

    def content(self) -> WorkspaceContent | None:
        """What is known after a round; None before there is a specification."""
        if self._table is None:
            return None
        return WorkspaceContent(self._table, datetime.now(UTC), total_is_known=self._table.layout.is_complete)

    def close(self) -> None:
        """Closes what is open."""
        if self._round is not None:
            self._round.close()
            self._round = None

    def _tell(self, problem: str) -> None:
        if problem not in self.problems and len(self.problems) < _MAX_TOLD:
            self.problems.append(problem)

    def _look(self) -> Generator[None, None, None]:
        top = open_below(self._roots, self.workspace)
        try:
            workspace = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)  # that one may not be readable
        finally:
            os.close(top)
        self.calls += 20
        try:
            layout = self._files.layout(workspace)
            if layout is None:
                return
            if self._table is None or self._table.layout is not layout:
                self._start(layout)
            yield from self._visit_children(self._root, workspace)
        finally:
            os.close(workspace)

    def _start(self, layout: Layout) -> None:
        self._table = TaskTable(layout)
        self._root = _Node("", "", -1, None, -1, -1, 0)
        self._own_files.clear()
        self._read_again.clear()
        self._condensed_again.clear()
        self._changed = True
        self._steps = {safe_name(step.name): number for number, step in enumerate(layout.spec.steps)}

    # --- directories

    def _visit_children(self, node: _Node, directory: int) -> Generator[None, None, None]:
        self._list(node, directory)
        for name, child in list(node.children.items()):
            if child.is_task:
                self._visit_task(child, directory)
            elif not self._is_settled(child):
                try:
                    inner = open_directory(directory, name)
                except FileNotFoundError:
                    del node.children[name]
                    continue
                except OSError as error:
                    self._tell(f"{child.path}: {error.strerror}")
                    continue
                self.calls += 2
                try:
                    yield from self._visit(child, inner)
                finally:
                    os.close(inner)
            if self._is_settled(child):
                del node.children[name]
            if time.perf_counter() > self._deadline:
                yield

    def _visit(self, node: _Node, directory: int) -> Generator[None, None, None]:
        if node.group is not None and node.depth == 0 or node.first < 0:
            yield from self._visit_condensed(node, directory)
        yield from self._visit_children(node, directory)

    def _list(self, node: _Node, directory: int) -> None:
        """Finds new directories, if there may be any."""
        modified, now = os.fstat(directory).st_mtime_ns, time.time()
        self.calls += 1
        if modified == node.modified and now - node.listed_at < _LIST_AGAIN:
            return
        try:
            names = directories_in(directory)
        except OSError as error:
            self._tell(f"{node.path or '.'}: {error.strerror}")
            return
        self.calls += 3
        node.modified = modified if now - modified / 1e9 > COARSE else -1
        node.listed_at = now
        for name in names:
            if name not in node.children:
                child = self._child(node, name)
                if child is not None and not self._is_settled(child):
                    node.children[name] = child

    def _child(self, node: _Node, name: str) -> _Node | None:
        """None for a directory that is none of Merlin's tasks."""
        assert self._table is not None
        layout = self._table.layout
        path = f"{node.path}/{name}" if node.path else name
        if node.step < 0:
            step = self._steps.get(name)
            if step is None:
                return None
            group = layout.by_directory.get(path)
            return self._of_group(group, name) if group else _Node(name, path, step, None, -1, -1, 0)
        if node.depth >= _MAX_DEPTH or _NESTED_RUN.search(name):
            return None
        if node.group is None and node.depth == 0 and (group := layout.by_directory.get(path)) is not None:
            return self._of_group(group, name)
        if node.group is not None and node.first >= 0:
            found = node.group.samples.child(node.depth, node.first, node.end, name)
            if found is not None:
                return _Node(name, path, node.step, node.group, *found, node.depth + 1)
        is_combination = node.group is None and node.depth == 0
        if is_combination or (name.isascii() and name.isdecimal()):
            return _Node(name, path, node.step, node.group, -1, -1, node.depth + 1)
        return None

    def _of_group(self, group: Group, name: str) -> _Node:
        assert self._table is not None
        is_foreseen = not group.uses_samples or self._table.layout.sample_count is not None
        ends = (group.first, group.end) if is_foreseen else (-1, -1)
        return _Node(name, group.directory, group.step, group, *ends, 0)

    def _is_settled(self, node: _Node) -> bool:
        """Whether nothing of it is looked at any more."""
        assert self._table is not None
        if node.first >= 0:
            return self._table.settled.find(0, node.first, node.end) < 0
        index = self._table.extra(node.path)
        return index is not None and not node.children and self._table.settled[index] == 1

    # --- status files

    def _visit_task(self, node: _Node, parent: int) -> None:
        try:
            directory = open_directory(parent, node.name)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._tell(f"{node.path}: {error.strerror}")
            return
        try:
            self._read_task(node, directory)
        finally:
            os.close(directory)

    def _read_task(self, node: _Node, directory: int) -> None:
        """The task's own file. A cut one is read again at once, then in the next round; the last good one holds."""
        assert self._table is not None
        index = node.first
        self.calls += 3
        try:
            if node.version is not None and index not in self._read_again:
                if version_at(directory, status_file.NAME) == node.version:
                    return
            for _ in range(2):
                self.calls += 4
                content, version = read_file(directory, status_file.NAME, status_file.MAX_SMALL)
                try:
                    entries = status_file.entries_of(content)
                    break
                except ValueError:
                    continue
            else:
                node.version = None
                if _age(version) > COARSE:
                    self._tell(f"{node.path}/{status_file.NAME}: no JSON of Merlin's")
                return
        except FileNotFoundError:
            node.version = None
            if self._table.status(index).is_done:  # of which a condensed file told
                self._settle(index)
            return
        except UnreadableError as error:
            self._tell(f"{node.path}: {error}")
            return
        except OSError as error:
            self._tell(f"{node.path}/{status_file.NAME}: {error.strerror}")
            return
        entry = next((entry for path, entry in entries if path == node.path or len(entries) == 1), None)
        node.version = version if _age(version) > COARSE else None
        if entry is None:
            return
        self._read_again.discard(index)
        self._put(index, node.step, entry)
        if entry.status.is_done:
            self._settle(index)
        else:
            self._own_files.add(index)

    def _visit_condensed(self, node: _Node, directory: int) -> Generator[None, None, None]:
        """The file of a group of samples, or any that was not foreseen."""
        now = time.monotonic()
        if now < self._condensed_again.get(node.path, 0.0):
            return
        self.calls += 1
        try:
            if node.version is not None and version_at(directory, status_file.NAME) == node.version:
                return
            descriptor, found = open_regular(directory, status_file.NAME)
        except FileNotFoundError:
            node.version = None
            return
        except (OSError, UnreadableError) as error:
            self._tell(f"{node.path}: {error}")
            return
        try:
            if found.st_size > status_file.MAX_SIZE:
                self._tell(f"{node.path}/{status_file.NAME}: more than {status_file.MAX_SIZE} bytes")
                return
            began = time.thread_time()
            pieces, count, size = Pieces(), 0, 0
            while size <= found.st_size:
                piece = os.read(descriptor, status_file.PIECE)
                self.calls += 1
                if not piece:
                    break
                size += len(piece)
                count += self._put_condensed(node, pieces.entries(piece))
                if time.perf_counter() > self._deadline:
                    yield
            if not count and size and _age(version_of(found)) > COARSE:
                self._tell(f"{node.path}/{status_file.NAME}: no JSON of Merlin's")
            is_same = version_of(os.fstat(descriptor)) == version_of(found) and size == found.st_size
            node.version = version_of(found) if is_same and _age(version_of(found)) > COARSE else None
            self._condensed_again[node.path] = time.monotonic() + _COST_SHARE * (time.thread_time() - began)
        except OSError as error:
            self._tell(f"{node.path}/{status_file.NAME}: {error.strerror}")
        finally:
            os.close(descriptor)

    def _put_condensed(self, node: _Node, entries: "Generator[tuple[str, Entry], None, None]") -> int:
        assert self._table is not None
        table, count = self._table, 0
        inside = node.path + "/"
        for path, entry in entries:
            if not path.startswith(inside) and path.rstrip("/") != node.path:
                continue
            index = table.index_of(path.rstrip("/"), node.step)
            count += 1
            if index is None or table.settled[index]:
                continue
            self._put(index, node.step, entry)
            if index in self._own_files:
                self._read_again.add(index)
            elif entry.status in _STAYS or (index >= table.layout.count and entry.status.is_done):
                table.settled[index] = 1
        return count

    def _put(self, index: int, step: int, entry: Entry) -> None:
        assert self._table is not None
        if self._table.put(index, step, entry):
            self._changed = True

    def _settle(self, index: int) -> None:
        assert self._table is not None
        self._table.settled[index] = 1
        self._own_files.discard(index)
        self._read_again.discard(index)


def _age(version: Version) -> float:
    """Seconds, by this machine's clock."""
    return time.time() - version.modified / 1e9
