"""Reads one workspace, again and again: all of it at first, then only what may have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from server.database.files.workspace_roots import OutsideError, open_below
from server.work.workspace.content import WorkspaceContent
from server.work.workspace.directory import MAX_NAMES, directories_in, open_directory
from server.work.workspace.layout import Layout
from server.work.workspace.nodes import Node, Nodes
from server.work.workspace.specification_files import SpecificationFiles
from server.work.workspace.status_files import COARSE, StatusFiles
from server.work.workspace.tasks import TaskTable

LIST_AGAIN: Final = 30.0
"""Seconds after which a directory is listed again though its time did not change."""
_MAX_TOLD = 20


class Scanner:
    """Blocks; used by one thread at a time. `close` it."""

    def __init__(self, roots: Sequence[Path], workspace: str) -> None:
        self._roots = roots
        self.workspace = workspace
        self.problems: list[str] = []
        """What can't be read, each once."""
        self.absence = ""
        """Why there is no workspace to be read, as of many old runs; empty if there is one."""
        self._calls = 0
        self._files = SpecificationFiles(roots, self._tell)
        self._table: TaskTable | None = None
        self._nodes: Nodes
        self._status_files: StatusFiles
        self._root: Node
        self._round: Generator[None, None, None] | None = None
        self._deadline = 0.0
        self._changed = False

    @property
    def calls(self) -> int:
        """To the file system, about."""
        return self._calls if self._table is None else self._calls + self._status_files.calls

    def advance(self, seconds: float) -> bool:
        """Goes on for about so long; whether that ended a round."""
        self._deadline = time.perf_counter() + seconds
        if self._round is None:
            self._round = self._look()
        try:
            next(self._round)
        except StopIteration:
            self.absence = ""
        except OutsideError:
            self.absence = "it lies below none of the workspace roots"
        except (FileNotFoundError, NotADirectoryError) as error:
            self.absence = str(error.strerror)
        except OSError as error:
            self._tell(str(error))
        else:
            return False
        self._round = None
        return True

    def take_content(self) -> WorkspaceContent | None:
        """What is known after a round, if that differs from what was taken last."""
        if self._table is None or not (self._changed or self._status_files.changed):
            return None
        self._changed = self._status_files.changed = False
        return self.content()

    def content(self) -> WorkspaceContent | None:
        """What is known after a round; None before there is a specification."""
        return None if self._table is None else WorkspaceContent(self._table, datetime.now(UTC))

    def close(self) -> None:
        """Closes what is open; while a thread is at work here still, that is closed once nobody refers to it."""
        if self._round is not None:
            with suppress(ValueError):  # "generator already executing"
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
        self._calls += 20
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
        self._calls = self.calls
        self._table = TaskTable(layout)
        self._nodes = Nodes(self._table)
        self._status_files = StatusFiles(self._table, self._tell)
        self._root = self._nodes.root()
        self._changed = True

    def _visit(self, node: Node, directory: int) -> Generator[None, None, None]:
        if node.may_be_condensed:
            for _ in self._status_files.read_condensed(node, directory):
                if time.perf_counter() > self._deadline:
                    yield
        yield from self._visit_children(node, directory)

    def _visit_children(self, node: Node, directory: int) -> Generator[None, None, None]:
        self._list(node, directory)
        for name, child in list(node.children.items()):
            try:
                inner = open_directory(directory, name)
            except FileNotFoundError:
                del node.children[name]
                continue
            except OSError as error:
                self._tell(f"{child.path}: {error.strerror}")
                continue
            self._calls += 2
            try:
                if child.is_task:
                    self._status_files.read_own(child, inner)
                else:
                    yield from self._visit(child, inner)
            finally:
                os.close(inner)
            if self._nodes.is_settled(child):
                del node.children[name]
            if time.perf_counter() > self._deadline:
                yield

    def _list(self, node: Node, directory: int) -> None:
        """Finds new directories, if there may be any."""
        modified, now = os.fstat(directory).st_mtime_ns, time.time()
        self._calls += 1
        if modified == node.modified and now - node.listed_at < LIST_AGAIN:
            return
        try:
            names = directories_in(directory)
        except OSError as error:
            self._tell(f"{node.path or '.'}: {error.strerror}")
            return
        self._calls += 3
        if len(names) == MAX_NAMES:
            self._tell(f"{node.path or '.'}: more than {MAX_NAMES} directories")
        node.modified = modified if now - modified / 1e9 > COARSE else -1
        node.listed_at = now
        for name in names:
            if name not in node.children:
                child = self._nodes.child(node, name)
                if child is not None and not self._nodes.is_settled(child):
                    node.children[name] = child
