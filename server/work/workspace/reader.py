"""The source WORKSPACE_FILES: which workspaces are looked at, and when, and what is kept of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final, NamedTuple, TypeVar

from server.database.files.daemon_threads import DaemonThreads, ThreadsHangError
from server.database.files.workspace_roots import OutsideError
from server.database.models import RunModel, RunStatus
from server.database.observations import Observations, RunObservation, WorkspaceReader
from server.database.read_model import ReadModel
from server.database.workspaces import DEFAULT_TAIL, LogStream, LogTail, Source
from server.work.active_runs import ACTIVE
from server.work.source import WorkSource
from server.work.workspace.content import WorkspaceContent
from server.work.workspace.directory import UnusableFileError
from server.work.workspace.logs import LogFile, Position, read_on, read_tail
from server.work.workspace.samples_file import SampleRows, SamplesFile
from server.work.workspace.scanner import Scanner
from server.work.workspace.watch import ASKED_FOR, Pace, Slice, Watch

T = TypeVar("T")
LOG = logging.getLogger(__name__)

READ_SECONDS: Final = 2.0
"""For which `read` waits at most."""
USUAL: Final = Pace(share=0.2, calls=20_000)
AWAITED: Final = Pace(share=0.9, calls=300_000)
"""While somebody waits for a first answer."""
MAX_BYTES: Final = 2**28
"""Of what is kept of workspaces, about."""
MAX_WATCHES: Final = 1_000
"""Runs that are looked at because somebody asked."""
MAX_ACTIVE: Final = 200
"""Active runs that are looked at though nobody asked: those that were launched last."""
FOLLOWED: Final = DEFAULT_TAIL
"""Bytes of a log in one message."""
_FIRST_FOLLOWED = DEFAULT_TAIL
_SLICE = 0.01
"""Seconds of work at a time."""
_HANGS = 20.0
"""Seconds after which a call to the file system counts as hanging."""
_THREADS = 4
"""One works, unless others hang."""
_ROW_THREADS = 2
"""For rows of samples: a long file keeps no log waiting."""
_ADOPT = 1.0
"""Seconds between two looks at which runs are active."""
_UNREADABLE = 15.0
"""Seconds until a run without a specification in reach is tried again."""
_POLL = 0.3
"""Seconds between two looks at a log that is followed."""
_MAX_TOLD = 10_000


class _Kept(NamedTuple):
    size: int
    """Bytes, about."""
    status: RunStatus
    """Of the run, when it was told."""


class WorkspaceFiles(WorkSource, WorkspaceReader):
    """Works while `run` does. `roots`: below which workspaces are read. `below`: one of them that stands for `/` in the
    names of those that lie below no other, for sample data.
    """

    source = Source.WORKSPACE_FILES

    def __init__(
        self,
        read_model: ReadModel,
        observations: Observations,
        roots: Sequence[Path],
        *,
        usual: Pace = USUAL,
        awaited: Pace = AWAITED,
        max_bytes: int = MAX_BYTES,
        below: Path | None = None,
    ) -> None:
        self._read_model = read_model
        self._observations = observations
        self._roots = tuple(roots)
        self._usual = usual
        self._awaited = awaited
        self._max_bytes = max_bytes
        self._below = below
        self._watches: dict[str, Watch] = {}
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """What is known of runs, that which was told last at the end."""
        self._unreadable: dict[str, float] = {}
        """Until when runs are not tried again."""
        self._told: set[tuple[str, str]] = set()
        """What was logged, of which run."""
        self._turns = itertools.count(1)
        self._wake = asyncio.Event()
        self._threads = DaemonThreads(_THREADS)
        self._log_threads = DaemonThreads(_THREADS)
        self._row_threads = DaemonThreads(_ROW_THREADS)
        self._sample_rows = SampleRows(self._roots)
        self._adopted = 0.0

    # --- what asks

    def can_read(self, run_id: str) -> bool:
        run = self._read_model.runs.get(run_id)
        if run is None or not self._roots or not run.workspace.startswith("/"):
            return False
        return self._unreadable.get(run_id, 0.0) <= time.monotonic()

    async def read(self, run_ids: Collection[str]) -> None:
        watches = [watch for run_id in run_ids if (watch := self._ask(run_id)) is not None]
        awaited = [watch for watch in watches if not watch.first_round.is_set()]
        for watch in awaited:
            watch.is_awaited = True
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                for watch in awaited:
                    await watch.first_round.wait()

    def note_interest(self, run_id: str) -> None:
        is_new = run_id not in self._watches
        if self._ask(run_id) is not None and is_new:
            self._wake.set()

    def hint(self, run_id: str) -> None:
        """Something happened in a workspace: it is looked at soon, if it is looked at."""
        watch = self._watches.get(run_id)
        if watch is not None:
            watch.due = min(watch.due, time.monotonic())
            self._wake.set()

    async def tail(self, run_id: str, task_path: str, stream: LogStream, last: int) -> LogTail | None:
        log = await self._log(run_id, task_path, stream)
        return None if log is None else await self._of_log(partial(read_tail, log, last))

    async def sample_rows(self, run_id: str, first: int, offset: int) -> list[list[Any]] | None:
        content, run = await self._content(run_id), self._read_model.runs.get(run_id)
        if content is None or run is None:
            return None
        spec = content.layout.spec
        if not spec.sample_columns or spec.samples_file is None:
            return None
        samples = SamplesFile(self._place_of(run), spec.samples_file, len(spec.sample_columns))
        try:
            return await _bounded(self._row_threads, partial(self._sample_rows.read, samples, first, offset))
        except (OSError, UnusableFileError, OutsideError) as error:
            reason = "it takes too long" if isinstance(error, TimeoutError) else str(error)
            self._log_once(
                run_id, samples.workspace, f"the file of samples: {reason or 'outside of the workspace roots'}"
            )
            return None

    async def follow(self, run_id: str, task_path: str, stream: LogStream) -> AsyncGenerator[LogTail]:
        log = await self._log(run_id, task_path, stream)
        position: Position | None = None
        while log is not None:
            most = _FIRST_FOLLOWED if position is None else FOLLOWED
            found = await self._of_log(partial(read_on, log, position, most))
            if found is None:
                await asyncio.sleep(_POLL)
                if run_id not in self._read_model.runs.records:
                    return
                continue
            tail, position = found
            yield tail

    def _ask(self, run_id: str) -> Watch | None:
        """None for a run that is not looked at."""
        if not self.can_read(run_id):
            return None
        watch = self._watches.get(run_id)
        if watch is None:
            if len(self._watches) >= MAX_WATCHES or self._is_over(run_id):
                return None
            watch = self._begin(run_id)
        watch.asked_until = time.monotonic() + ASKED_FOR
        return watch

    def _is_over(self, run_id: str) -> bool:
        """Whether the run is finished and was read, and nothing is heard of it since."""
        status = self._read_model.runs.records[run_id].run_status
        kept = self._kept.get(run_id)
        return kept is not None and status.is_finished and status is kept.status

    def _begin(self, run_id: str) -> Watch:
        run = self._read_model.runs.records[run_id]
        watch = self._watches[run_id] = Watch(run_id, Scanner(self._roots, self._place_of(run)), time.monotonic())
        return watch

    def _place_of(self, run: RunModel) -> str:
        if self._below is None:
            return run.workspace
        others = (root for root in self._roots if root != self._below)
        is_real = any(Path(run.workspace).is_relative_to(root) for root in others)
        return run.workspace if is_real else f"{self._below}{run.workspace}"

    # --- the source

    async def run(self) -> None:
        self._observations.set_source(self.source, works=True)
        try:
            while True:
                await self._adopt()
                watch = self._next()
                if watch is not None and watch.due <= time.monotonic():
                    await self._look(watch)
                else:
                    await self._rest(watch)
        finally:
            for watch in self._watches.values():
                watch.first_round.set()
                watch.scanner.close()
            self._watches.clear()

    def _next(self) -> Watch | None:
        """The one that is due, by turns, those first for which somebody waits; else the one that is due next."""
        now = time.monotonic()
        return min(
            self._watches.values(),
            key=lambda watch: (max(watch.due, now), not watch.is_awaited, watch.turn),
            default=None,
        )

    async def _rest(self, watch: Watch | None) -> None:
        pause = _ADOPT if watch is None else min(watch.due - time.monotonic(), _ADOPT)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()

    async def _adopt(self) -> None:
        """Looks at active runs from now on, and forgets those that are gone."""
        now = time.monotonic()
        if now < self._adopted + _ADOPT:
            return
        self._adopted = now
        runs = self._read_model.runs
        for run_id in [run_id for run_id in self._watches if run_id not in runs.records]:
            self._end(self._watches[run_id])
        gone = [run_id for run_id in self._kept if run_id not in runs.records]
        self._unreadable = {run_id: until for run_id, until in self._unreadable.items() if until > now}
        active = sorted(itertools.chain(*(self._read_model.run_statuses.of(status)[:MAX_ACTIVE] for status in ACTIVE)))
        await self._forget(gone)
        changed = [run_id for run_id in self._kept if run_id in runs.records and not self._is_over(run_id)]
        for run_id in [*(run_id for _, run_id in active[:MAX_ACTIVE]), *changed]:
            if run_id not in self._watches and self.can_read(run_id):
                self._begin(run_id)

    async def _look(self, watch: Watch) -> None:
        watch.turn = next(self._turns)
        pace = self._awaited if watch.is_awaited else self._usual
        began = time.monotonic()
        try:
            async with asyncio.timeout(_HANGS):
                work = await self._threads.run(partial(_work, watch))
        except (TimeoutError, ThreadsHangError) as error:
            LOG.warning("Reading %r takes too long: %s", watch.scanner.workspace, error or "the file system hangs")
            self._leave(watch)
            await asyncio.sleep(_ADOPT)
            return
        if work.has_ended:
            await self._end_round(watch, work)
        pause = pace.pause(work, time.monotonic() - began)
        if pause > 0:
            await asyncio.sleep(pause)

    async def _end_round(self, watch: Watch, work: Slice) -> None:
        self._log_problems(watch)
        run = self._read_model.runs.get(watch.run_id)
        if run is None or self._place_of(run) != watch.scanner.workspace:
            self._end(watch)
        elif work.content is not None:
            await self._tell(run, work.content)
            self._settle(watch, run)
        elif watch.run_id not in self._kept:
            self._leave(watch)
        else:
            self._settle(watch, run)

    def _settle(self, watch: Watch, run: RunModel) -> None:
        is_finished = run.run_status.is_finished
        if watch.run_id in self._kept:
            self._kept[watch.run_id] = self._kept[watch.run_id]._replace(status=run.run_status)
        is_restarted = watch.was_finished and not is_finished  # then tasks that failed may be at work again
        if is_restarted or not watch.end_round(time.monotonic(), is_finished=is_finished):
            self._end(watch)
        if is_restarted and watch.run_id in self._read_model.runs.records:
            self._begin(watch.run_id).asked_until = watch.asked_until

    def _leave(self, watch: Watch) -> None:
        """It can't be read now."""
        self._unreadable[watch.run_id] = time.monotonic() + _UNREADABLE
        self._end(watch)

    def _end(self, watch: Watch) -> None:
        watch.first_round.set()
        if self._watches.get(watch.run_id) is watch:
            del self._watches[watch.run_id]
        watch.scanner.close()

    def _log_problems(self, watch: Watch) -> None:
        """Once for each run."""
        scanner = watch.scanner
        problems = [(logging.WARNING, problem) for problem in scanner.problems]
        problems += [(logging.INFO, scanner.absence)] if scanner.absence else []
        for level, problem in problems:
            self._log_once(watch.run_id, scanner.workspace, problem, level)

    def _log_once(self, run_id: str, workspace: str, problem: str, level: int = logging.WARNING) -> None:
        if (run_id, problem) not in self._told:
            if len(self._told) >= _MAX_TOLD:
                self._told.clear()
            self._told.add((run_id, problem))
            LOG.log(level, "The workspace %r can't be read, or not all of it: %s", workspace, problem)

    # --- what is kept

    async def _tell(self, run: RunModel, content: WorkspaceContent) -> None:
        await self._read_model.long_reads.ended()
        run_id = run.id
        self._observations.set_runs({run_id: RunObservation(content.progress, content)}, self.source)
        self._kept[run_id] = _Kept(content.size, run.run_status)
        self._kept.move_to_end(run_id)
        total = sum(kept.size for kept in self._kept.values())
        too_many = []
        for other, kept in self._kept.items():
            if total <= self._max_bytes or other == run_id:
                break
            total -= kept.size
            too_many.append(other)
        await self._forget(too_many)

    async def _forget(self, run_ids: Sequence[str]) -> None:
        if not run_ids:
            return
        await self._read_model.long_reads.ended()
        for run_id in run_ids:
            self._kept.pop(run_id, None)
            if (watch := self._watches.get(run_id)) is not None:
                self._leave(watch)
        self._observations.set_runs(dict.fromkeys(run_ids), self.source)

    # --- files that are read when they are asked for

    async def _content(self, run_id: str) -> WorkspaceContent | None:
        if not isinstance(self._observations.run(run_id).workspace, WorkspaceContent):
            await self.read([run_id])
        content = self._observations.run(run_id).workspace
        return content if isinstance(content, WorkspaceContent) else None

    async def _log(self, run_id: str, task_path: str, stream: LogStream) -> LogFile | None:
        """None unless the task is a known one."""
        content, run = await self._content(run_id), self._read_model.runs.get(run_id)
        name = None if content is None else content.log_name(task_path)
        if name is None or run is None:
            return None
        return LogFile.of(self._roots, self._place_of(run), task_path, name, stream)

    async def _of_log(self, function: Callable[[], T]) -> T | None:
        """None also where the file system hangs."""
        with suppress(TimeoutError, ThreadsHangError):
            return await _bounded(self._log_threads, function)
        return None


async def _bounded(threads: DaemonThreads, function: Callable[[], T]) -> T:
    """Raises TimeoutError and `ThreadsHangError`, both of which are an OSError."""
    async with asyncio.timeout(READ_SECONDS):
        return await threads.run(lambda _given_up: function())


def _work(watch: Watch, _given_up: Event) -> Slice:
    return watch.work(_SLICE)
