"""Keeps Merlin's files of runs in step with records that were changed here, or Merlin would undo the changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from weakref import WeakValueDictionary

from server.database.errors import BackendError
from server.database.feed import Feed
from server.database.files.daemon_threads import DaemonThreads, ThreadsHangError
from server.database.files.expanded_spec import name_in_spec
from server.database.files.metadata_file import FileOutcome, FileState, bring_in_step
from server.database.models import EntityKind, Key, RunModel
from server.database.read_model import ReadModel

LOG = logging.getLogger(__name__)

FILE_SECONDS = 3.0
"""For one file, waiting for its lock included."""
SECONDS = 8.0
"""For all files of one change: it answers after that."""
THREADS = 8

Listener = Callable[[FileState], None]


class RunMetadata:
    """Without roots it touches no file."""

    def __init__(self, feed: Feed, read_model: ReadModel, roots: Sequence[Path]) -> None:
        self._feed = feed
        self._read_model = read_model
        self._roots = roots
        self._threads = DaemonThreads(THREADS)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One writer a run: several of this process need not wait for each other's lock on the file."""
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """It is told what became of every file that was to be written."""
        self._listeners.append(listener)

    async def bring_in_step(self, runs: Mapping[str, bool]) -> dict[str, FileState]:
        """Of runs whose records have changed, by their ids; the value says whether the run is new.

        Returns within `SECONDS`: what was not reached by then has failed.
        """
        if not self._roots:
            return dict.fromkeys(runs, FileState.OUTSIDE)
        outcomes = dict.fromkeys(runs, FileOutcome(FileState.FAILED, f"there was no time for it in {SECONDS:g} s"))
        left = iter(runs.items())

        async def take() -> None:
            for id_, is_new in left:
                outcomes[id_] = await self._outcome(id_, is_new=is_new)

        try:
            async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
                for _ in range(min(len(runs), THREADS)):
                    group.create_task(take())
        except TimeoutError:
            pass  # what it got to is told
        self._tell(outcomes)
        return {id_: outcome.state for id_, outcome in outcomes.items()}

    async def study_names(self, workspaces: Mapping[str, str]) -> dict[str, str]:
        """What the specifications of some runs are named, by the runs' ids, as far as they are reached in `SECONDS`."""
        names: dict[str, str] = {}
        if not self._roots:
            return names
        with suppress(TimeoutError, ThreadsHangError):
            async with asyncio.timeout(SECONDS):
                for id_, workspace in workspaces.items():
                    name = await self._threads.run(partial(self._name_in_spec, workspace))
                    if name is not None:
                        names[id_] = name
        return names

    def _name_in_spec(self, workspace: str, _given_up: Event) -> str | None:
        return name_in_spec(self._roots, workspace)

    async def _outcome(self, id_: str, *, is_new: bool) -> FileOutcome:
        run = self._read_model.runs.get(id_)
        if run is None:
            return FileOutcome(FileState.GONE)
        turn = self._turns.setdefault(id_, asyncio.Lock())
        read = partial(_result_of, asyncio.get_running_loop(), partial(self._read, id_))

        def write(given_up: Event) -> FileOutcome:
            return bring_in_step(self._roots, run.workspace, read, given_up, is_new=is_new)

        try:
            async with asyncio.timeout(FILE_SECONDS), turn:
                return await self._threads.run(write)
        except TimeoutError as error:
            return FileOutcome(FileState.FAILED, str(error) or f"it took longer than {FILE_SECONDS:g} s")
        except (OSError, BackendError, _UnreadableError) as error:
            return FileOutcome(FileState.FAILED, str(error))
        except Exception as error:  # a bug: the change is made, and what comes of it is told all the same
            LOG.exception("Merlin's file of the run %s could not be brought in step.", id_)
            return FileOutcome(FileState.FAILED, type(error).__name__)

    async def _read(self, id_: str) -> RunModel | None:
        key = Key(EntityKind.RUN, id_)
        await self._feed.refresh([key])
        if self._read_model.problems.get(key):
            raise _UnreadableError("its record has values that can't be read, and would be lost")
        return self._read_model.runs.get(id_)

    def _tell(self, outcomes: Mapping[str, FileOutcome]) -> None:
        for state, _ in outcomes.values():
            for listener in self._listeners:
                listener(state)
        failed = {id_: outcome.reason for id_, outcome in outcomes.items() if outcome.reason}
        if failed:
            id_, reason = next(iter(failed.items()))
            LOG.warning(
                "Merlin's file of %d of %d changed runs was not brought in step, and Merlin may undo the change: "
                "run %s, %r: %s.",
                len(failed),
                len(outcomes),
                id_,
                self._workspace_of(id_),
                reason,
            )

    def _workspace_of(self, id_: str) -> str | None:
        run = self._read_model.runs.get(id_)
        return None if run is None else run.workspace


class _UnreadableError(Exception):
    pass


def _result_of(
    loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, RunModel | None]]
) -> RunModel | None:
    """Of a coroutine of the loop, for another thread. Raises what it raises, and TimeoutError."""
    coroutine = function()
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as error:  # the loop has ended
        coroutine.close()
        raise TimeoutError(str(error)) from error
    try:
        return future.result(FILE_SECONDS)
    finally:
        future.cancel()
