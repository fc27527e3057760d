"""The integrity check: searches one snapshot of the copy for contradictions, in steps, for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeVar

from server.database.backends.base import ResultsBackend
from server.database.backends.notes import NoteKey, NoteKind
from server.database.feed import Feed
from server.database.files.run_metadata import RunMetadata
from server.database.integrity import (
    NameMaps,
    Problem,
    ProblemKind,
    Surveyed,
    find_problems,
    is_mismatch,
    outdated_tables,
)
from server.database.lost_studies import needs_spec
from server.database.models import EntityKind
from server.database.read_model import ReadModel
from server.database.snapshots import Snapshot, snapshot_of
from server.database.steps import Steps
from server.database.tasks import end_tasks

_BETWEEN_LOOKS = 20
"""Places to interrupt the search that are passed at once: less than a millisecond, and some where lists are long."""

Item = TypeVar("Item")
State = tuple[int, int]
"""The step of the copy, and how many notices of name maps there were."""


class _Search:
    """One search under way."""

    def __init__(self, state: State, task: asyncio.Task[list[Problem]]) -> None:
        self.state = state
        self.task = task
        self.waiting = 0


class IntegrityCheck:
    """Knows the problems of the latest revision that was searched. At most one search runs at a time.

    Whoever asks at the revision of a search shares it; the others wait for its end and share the next one. A search for
    which nobody waits any more is given up.
    """

    def __init__(self, backend: ResultsBackend, read_model: ReadModel, feed: Feed, run_metadata: RunMetadata) -> None:
        self._backend = backend
        self._read_model = read_model
        self._feed = feed
        self._run_metadata = run_metadata
        self._steps = Steps()
        self._search: _Search | None = None
        self._known: tuple[State, list[Problem]] | None = None

    @property
    def is_known(self) -> bool:
        """Whether problems are kept, of whatever revision."""
        return self._known is not None

    def forget(self) -> None:
        """The next one who asks gets the result of a new search."""
        self._known = None
        if self._search is not None:
            self._search.state = (-1, -1)

    async def problems(self) -> list[Problem]:
        """The inconsistencies of one revision, not older than the call. Raises `BackendError`."""
        while True:
            state = self._state()
            if self._known is not None and self._known[0] == state:
                return self._known[1]
            if self._search is None:
                self._search = _Search(state, asyncio.create_task(self._find()))
            elif self._search.state != state:
                await asyncio.wait({self._search.task})
                continue
            return await self._result(self._search)

    async def _result(self, search: _Search) -> list[Problem]:
        search.waiting += 1
        try:
            return await asyncio.shield(search.task)
        finally:
            search.waiting -= 1
            if not search.waiting and not search.task.done():
                self._end(search)
                await end_tasks([search.task])

    def _state(self) -> State:
        return self._read_model.local_revision, self._feed.name_map_notices

    def _end(self, search: _Search) -> None:
        """Nobody joins it any more."""
        if self._search is search:
            self._search = None

    async def _find(self) -> list[Problem]:
        search = self._search
        assert search is not None
        try:
            return await self._search_through(search)
        finally:
            self._end(search)

    async def _search_through(self, search: _Search) -> list[Problem]:
        backend, steps = self._backend, self._steps
        name_maps: NameMaps = {kind: await backend.name_map(kind) for kind in backend.name_maps}
        await steps.turn()
        snapshot, state = snapshot_of(self._read_model), self._state()
        resurrected = await self._resurrected(snapshot)
        without_study = await _collected(needs_spec(snapshot), steps)
        spec_names = await self._run_metadata.study_names({run.id: run.workspace for run in without_study})
        of_tables = outdated_tables(await backend.outdated_tables())
        found = await _collected(find_problems(snapshot, Surveyed(name_maps, resurrected, spec_names)), steps)
        if state != search.state:
            found = await self._without_passing(found, snapshot)
        problems = [*of_tables, *found]
        if state == search.state:
            self._known = state, problems
        return problems

    async def _without_passing(self, found: Sequence[Problem], snapshot: Snapshot) -> list[Problem]:
        """Leaves out what is right by now, and was changed between the reading of the name maps and the snapshot."""
        names: dict[EntityKind, list[str]] = {}
        for problem in found:
            if problem.kind is ProblemKind.NAME_INDEX_MISMATCH:
                names.setdefault(problem.key.kind, []).append(problem.name or "")
        owners = {kind: await self._backend.name_owners(kind, of_kind) for kind, of_kind in names.items()}
        return [
            problem
            for problem in found
            if problem.kind is not ProblemKind.NAME_INDEX_MISMATCH
            or is_mismatch(problem, snapshot.tables[problem.key.kind], owners[problem.key.kind])
        ]

    async def _resurrected(self, snapshot: Snapshot) -> list[str]:
        """The ids of runs that exist although a tombstone says that they were deleted."""
        runs = snapshot.runs.records
        suspects = [NoteKey(NoteKind.DELETED, id_) for id_ in self._read_model.tombstones if id_ in runs]
        notes = await self._backend.read_notes(suspects) if suspects else {}
        return sorted(key.id for key, text in notes.items() if text is not None)


async def _collected(items: Iterable[Item | None], steps: Steps) -> list[Item]:
    """What a generator yields beside None, taken in steps."""
    found: list[Item] = []
    for place, item in enumerate(items):
        if item is not None:
            found.append(item)
        if not place % _BETWEEN_LOOKS:
            await steps.turn()
    return found
