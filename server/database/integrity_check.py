"""The integrity check: knows the contradictions in the copy, and examines only what changed since it was asked last.

It follows the copy from the first time it is asked. What the copy does not hold (name maps, tombstones, specifications)
is read at each question; a whole name map only when a notice of it came.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from server.database.backends.base import ResultsBackend
from server.database.backends.notes import NoteKey, NoteKind
from server.database.examination import LISTS_OF, Examination, Surveyed
from server.database.feed import Feed
from server.database.files.run_metadata import RunMetadata
from server.database.integrity import SIDES, outdated_tables
from server.database.known_problems import KnownProblems
from server.database.lost_studies import needs_spec
from server.database.models import EntityKind, Key, Model
from server.database.name_entries import suspects
from server.database.problem_list import ProblemList
from server.database.read_model import Change, ReadModel
from server.database.reexamination import Unexamined, note_change
from server.database.slices import give_way, in_slices
from server.database.steps import Steps
from server.database.tasks import end_tasks

_NAMES_TOGETHER = 500
"""Names that are looked up at once, and examined in one step."""
_MOST_CHANGED = 10_000
"""Changed records that are kept until somebody asks; after more everything is examined anew."""

State = tuple[int, int]
"""The step of the copy, and how many notices of name maps there were."""


class _Search:
    """One search under way."""

    def __init__(self, state: State, task: asyncio.Task[ProblemList]) -> None:
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
        self._known: tuple[State, ProblemList] | None = None
        self._forget_all()
        read_model.listen(self._note)
        read_model.on_reread = self._note_reread

    def _forget_all(self) -> None:
        self._is_following = False
        """Whether what changes is noted."""
        self._problems = KnownProblems()
        self._unexamined = Unexamined()
        self._changed: dict[Key, Model | None] = {}
        """The records that changed since they were examined, as they were then."""
        self._reread: set[Key] = set()
        """The records of which other values can be read than then."""
        self._names_read: dict[EntityKind, int] = {}
        """By kind: how many notices of its name map there were when that was read."""
        self._surveyed = Surveyed()
        self._nameless: dict[str, str] = {}
        """The workspaces of runs whose study is gone, and whose name only a specification may tell; by id."""
        self._asked: set[str] = set()
        """Those whose specification this search has looked into."""
        self._owners: dict[EntityKind, Mapping[str, str]] = {kind: {} for kind in EntityKind}
        """By kind: whom Merlin found by each name that several records have, when they were examined."""

    @property
    def is_known(self) -> bool:
        """Whether problems are kept, of whatever revision."""
        return self._known is not None

    def forget(self) -> None:
        """The next one who asks gets the result of a new search, for which all name maps are read again."""
        self._known = None
        self._names_read.clear()
        if self._search is not None:
            self._search.state = (-1, -1)

    async def problems(self) -> ProblemList:
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

    async def _result(self, search: _Search) -> ProblemList:
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

    async def _find(self) -> ProblemList:
        search = self._search
        assert search is not None
        try:
            return await self._search_through(search)
        except BaseException:
            self._forget_all()  # it is not known how far the search came
            raise
        finally:
            self._end(search)

    async def _search_through(self, search: _Search) -> ProblemList:
        notices, of_kinds = self._feed.name_map_notices, Counter(self._feed.name_map_changes)
        of_tables = outdated_tables(await self._backend.outdated_tables())
        self._asked = set(self._nameless)
        self._survey(await self._resurrected(), await self._run_metadata.study_names(self._nameless))
        if not self._is_following:
            self._is_following = True
            await in_slices(self._examine_all, self._steps.turn)
        for kind in self._backend.name_maps:
            if self._names_read.get(kind) != of_kinds[kind]:
                self._unexamined.names[kind] |= await suspects(self._backend, self._read_model, kind, self._steps)
                self._unexamined.names[kind] |= dict.fromkeys(self._problems.names(kind))
                self._names_read[kind] = of_kinds[kind]
        while self._is_pending():
            await in_slices(self._examine, self._steps.turn)
            await self._examine_names()
            await self._survey_nameless()
        state = self._read_model.local_revision, notices
        problems = (await in_slices(self._problems.listed, self._steps.turn)).joined_by(of_tables)
        if search.state != (-1, -1):
            self._known = state, problems
        return problems

    async def _resurrected(self) -> frozenset[str]:
        """The ids of runs that exist although a tombstone says that they were deleted."""
        suspected = self._read_model.tombstones & self._read_model.runs.records.keys()
        keys = [NoteKey(NoteKind.DELETED, id_) for id_ in suspected]
        notes = await self._backend.read_notes(keys) if keys else {}
        return frozenset(key.id for key, text in notes.items() if text is not None)

    def _survey(self, resurrected: frozenset[str], spec_names: Mapping[str, str]) -> None:
        """Takes what was read beside the copy, and notes the runs of which it says something else than before."""
        before = self._surveyed
        self._surveyed = Surveyed(resurrected, spec_names)
        changed = {id_ for id_, _ in before.spec_names.items() ^ spec_names.items()}
        for id_ in changed.union(resurrected.symmetric_difference(before.resurrected)):
            self._unexamined.records[Key(EntityKind.RUN, id_)] = None

    async def _survey_nameless(self) -> None:
        """Reads the specifications of runs that were not known to need it."""
        if new := {id_: self._nameless[id_] for id_ in self._nameless.keys() - self._asked}:
            self._asked.update(new)
            found = await self._run_metadata.study_names(new)
            self._survey(self._surveyed.resurrected, {**self._surveyed.spec_names, **found})

    def _note(self, _revision: int, changes: Sequence[Change]) -> None:
        if not self._is_following:
            return
        for change in changes:
            if change.before is not change.after:
                self._changed.setdefault(change.key, change.before)
        if len(self._changed) > _MOST_CHANGED and self._search is None:
            self._forget_all()

    def _note_reread(self, key: Key) -> None:
        if self._is_following:
            self._changed.setdefault(key, self._read_model.get(key))
            self._reread.add(key)

    def _note_owners(self) -> None:
        """Notes the names that several records have, and by which Merlin finds another one than before."""
        for kind, table in self._read_model.tables.items():
            before, owners = self._owners[kind], table.name_owners
            if before is not owners:
                self._owners[kind] = owners
                self._unexamined.names[kind].update((name, None) for name, _ in before.items() ^ owners.items())

    def _is_pending(self) -> bool:
        self._note_owners()
        return bool(self._changed or self._unexamined or self._nameless.keys() - self._asked)

    def _examine_all(self) -> None:
        """Examines everything, one after the other. What changes meanwhile is noted, and is examined again."""
        examination = Examination(self._read_model, self._surveyed)
        for kind, table in self._read_model.tables.items():
            self._unexamined.names[kind].update(dict.fromkeys(table.duplicate_names()))
            for record in list(table.records.values()):
                key = Key(kind, record.id)
                self._examine_record(examination, key)
                for side, other_side in LISTS_OF[kind]:
                    for other_id in side.ids(record):
                        if problems := examination.of_item(key, side, other_side, other_id):
                            self._problems.put((kind, side.field, record.id, other_id), problems)
                        give_way()
        for key in list(self._read_model.problems):
            self._examine_record(examination, key)

    def _examine(self) -> None:
        """Examines what changes have touched, until there is nothing left but names."""
        examination = Examination(self._read_model, self._surveyed)
        unexamined = self._unexamined
        while self._changed or unexamined.records or unexamined.items:
            while self._changed:
                key, before = self._changed.popitem()
                self._note_touched(key, before)
            while unexamined.records:
                self._examine_record(examination, unexamined.records.popitem()[0])
            while unexamined.items:
                (kind, name, id_, other_id), _ = unexamined.items.popitem()
                problems = examination.of_item(Key(kind, id_), *SIDES[kind, name], other_id)
                self._problems.put((kind, name, id_, other_id), problems)
                give_way()

    def _note_touched(self, key: Key, before: Model | None) -> None:
        is_reread = key in self._reread
        self._reread.discard(key)
        for name in self._problems.names_at(key):
            self._unexamined.names[key.kind][name] = None
        note_change(self._unexamined, self._read_model, key, before, is_reread=is_reread)

    def _examine_record(self, examination: Examination, key: Key) -> None:
        self._problems.put(key, examination.of_record(key))
        if key.kind is EntityKind.RUN:
            run = self._read_model.runs.get(key.id)
            workspace = run.workspace if run is not None and needs_spec(self._read_model, run) else None
            if workspace != self._nameless.get(key.id):
                self._asked.discard(key.id)
                if workspace is None:
                    del self._nameless[key.id]
                else:
                    self._nameless[key.id] = workspace
        give_way()

    async def _examine_names(self) -> None:
        """Looks up whom the name maps have, as late as possible, so that they are not older than the copy."""
        for kind, names in self._unexamined.names.items():
            has_map = kind in self._backend.name_maps
            while names:
                some = [names.popitem()[0] for _ in range(min(len(names), _NAMES_TOGETHER))]
                entries = await self._backend.name_owners(kind, some) if has_map else {}
                await self._steps.turn()
                examination = Examination(self._read_model, self._surveyed)
                for name in some:
                    problems = examination.of_name(kind, name, entries.get(name), has_map=has_map)
                    self._problems.put_name(kind, name, problems)
