"""Takes what status files say into the table of tasks: those of single tasks, and condensed ones.

For a moment a task may stand in both, or, as it was seen, in neither. Its own file is the later one: Merlin removes it
when it is condensed, and makes one again if it is restarted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from server.database.workspaces import TaskStatus
from server.work.workspace.directory import UnusableFileError, Version, open_regular, read_file, version_at, version_of
from server.work.workspace.nodes import Node
from server.work.workspace.status_file import MAX_SIZE, MAX_SMALL, NAME, PIECE, StatusParser
from server.work.workspace.tasks import Codes, TaskTable

COARSE: Final = 2.0
"""Seconds: a file system may count times so coarsely, so what changed less than that ago may have changed again."""
_COST_SHARE = 10
"""A condensed file is read again after as many times the time that it takes, since Merlin rewrites it whole."""
_STAYS = frozenset({TaskStatus.SUCCEEDED, TaskStatus.DRY_RUN})
"""A task that failed and was condensed may be at work again after `merlin restart`, with a file of its own."""
_NO_STATUS = "no JSON of Merlin's"


class StatusFiles:
    """`tell` is given what can't be read."""

    def __init__(self, table: TaskTable, tell: Callable[[str], None]) -> None:
        self.calls = 0
        """To the file system."""
        self.changed = False
        """Whether any task looks different. Set back by whoever takes that into account."""
        self._table = table
        self._tell = tell
        self._parser = StatusParser(table.encode)
        self._read_own: set[int] = set()
        """Tasks whose own files were read, and that are not done."""
        self._contested: set[int] = set()
        """Those of which a condensed file told something after that."""
        self._again_at: dict[str, float] = {}
        """When the condensed file of a directory may be read again."""

    def read_own(self, node: Node, directory: int) -> None:
        """The file of one task. A cut one is read again at once, then in the next round; the last good one holds."""
        try:
            self._read_own_file(node, directory)
        except FileNotFoundError:
            node.version = None
            if self._table.status(node.first).is_done:  # a condensed file told of it
                self._settle(node.first)
        except OSError as error:
            self._tell(f"{node.path}/{NAME}: {error.strerror}")
        except UnusableFileError as error:
            self._tell(f"{node.path}: {error}")

    def _read_own_file(self, node: Node, directory: int) -> None:
        """Raises OSError and `UnusableFileError`."""
        index = node.first
        if node.version is not None and index not in self._contested:
            self.calls += 1
            if version_at(directory, NAME) == node.version:
                return
        for is_last in (False, True):
            self.calls += 4
            content, version = read_file(directory, NAME, MAX_SMALL)
            is_settling = _age(version) <= COARSE
            try:
                entries = self._parser.entries_of(content)
            except ValueError:
                if is_last and not is_settling:
                    node.version = version
                    raise UnusableFileError(f"{_NO_STATUS}: {NAME!r}") from None
                node.version = None
                continue
            node.version = None if is_settling else version
            for path, codes in entries:
                if path == node.path or len(entries) == 1:
                    self._take_own(index, codes)
            return

    def _take_own(self, index: int, codes: Codes) -> None:
        self.changed |= self._table.put(index, codes)
        self._contested.discard(index)
        if codes.is_done:
            self._settle(index)
        else:
            self._read_own.add(index)

    def read_condensed(self, node: Node, directory: int) -> Iterator[None]:
        """The file of a group of samples, or any that was not foreseen; yields after each piece."""
        if time.monotonic() < self._again_at.get(node.path, 0.0):
            return
        try:
            self.calls += 1
            if node.version is not None and version_at(directory, NAME) == node.version:
                return
            descriptor, found = open_regular(directory, NAME)
            self.calls += 3
        except FileNotFoundError:
            node.version = None
            return
        except OSError as error:
            self._tell(f"{node.path}/{NAME}: {error.strerror}")
            return
        except UnusableFileError as error:
            self._tell(f"{node.path}: {error}")
            return
        try:
            yield from self._read_pieces(node, descriptor, version_of(found))
        except OSError as error:
            self._tell(f"{node.path}/{NAME}: {error.strerror}")
        finally:
            os.close(descriptor)

    def _read_pieces(self, node: Node, descriptor: int, version: Version) -> Iterator[None]:
        """Raises OSError."""
        if version.size > MAX_SIZE:
            self._tell(f"{node.path}/{NAME}: more than {MAX_SIZE} bytes")
            return
        node.version = None
        size, count, rest, processor = 0, 0, b"", 0.0
        while size <= version.size:
            began = time.thread_time()
            piece = os.read(descriptor, PIECE)
            self.calls += 1
            if not piece:
                break
            size += len(piece)
            entries, rest = self._parser.entries_in(rest + piece)
            count += len(entries)
            self._take_condensed(node, entries)
            processor += time.thread_time() - began
            yield
        is_settling = _age(version) <= COARSE
        if not count and size and not is_settling:
            self._tell(f"{node.path}/{NAME}: {_NO_STATUS}")
        if size == version.size and not is_settling and version_of(os.fstat(descriptor)) == version:
            node.version = version
        self._again_at[node.path] = time.monotonic() + _COST_SHARE * processor

    def _take_condensed(self, node: Node, entries: list[tuple[str, Codes]]) -> None:
        table, inside, step = self._table, f"{node.path}/", node.step
        index_of, settled, own, put = table.layout.index_of, table.settled, self._read_own, table.put
        foreseen = table.layout.count
        for path, codes in entries:
            if not path.startswith(inside) and path != node.path:
                continue
            index = index_of(path)
            if index is None and _are_samples(path[len(inside) :]):
                index = table.add(path.rstrip("/"), step)
            if index is None or settled[index]:
                continue
            if put(index, codes):
                self.changed = True
            if index in own:
                self._contested.add(index)
            elif codes.status in _STAYS or (index >= foreseen and codes.is_done):
                settled[index] = 1

    def _settle(self, index: int) -> None:
        self._table.settled[index] = 1
        self._read_own.discard(index)
        self._contested.discard(index)


def _are_samples(path: str) -> bool:
    """Whether it may be the directory of a sample: nothing but numbers."""
    return path.replace("/", "").isdecimal() and path.isascii() if path else True


def _age(version: Version) -> float:
    """Seconds, by this machine's clock."""
    return time.time() - version.modified / 1e9
