"""The content of a workspace as it was read last: the `Workspace` that entities show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import starmap
from typing import Any, overload

from server.database.workspaces import Progress, Source, Step, Task, TaskStatus, Workspace
from server.work.workspace.tasks import TaskTable

_CHUNK = 1024
"""Tasks that are compared at once."""
_LAYOUT_BYTES = 1000
"""Of a step and of a combination of parameters, about."""


class WorkspaceContent(Workspace):
    """A snapshot of a table of tasks. Tasks are made when they are read."""

    def __init__(self, table: TaskTable, as_of: datetime) -> None:
        self.layout = table.layout
        self._as_of = as_of
        self._columns = columns = table.copy()
        self._extras: dict[int, list[int]] = {}
        for index, step in enumerate(columns.extra_steps, self.layout.count):
            self._extras.setdefault(step, []).append(index)
        tasks = [
            (self.layout.starts[number], self.layout.starts[number + 1], self._extras.get(number, ()))
            for number in range(len(self.layout.spec.steps))
        ]
        counts = list(starmap(columns.counts, tasks))
        self._steps = tuple(
            Step(
                name=spec.name,
                description=spec.description,
                depends_on=spec.depends_on,
                queue=spec.queue,
                command=spec.command,
                uses_samples=spec.uses_samples,
                progress=_progress(
                    counts[number],
                    as_of,
                    total_is_known=self.layout.sample_count is not None or not spec.uses_samples,
                ),
                run_time=columns.run_time(*tasks[number]),
                tasks=_TasksOfStep(self, number),
            )
            for number, spec in enumerate(self.layout.spec.steps)
        )
        total: Counter[TaskStatus] = Counter()
        for of_step in counts:
            total.update(of_step)
        self._progress = _progress(total, as_of, total_is_known=self.layout.is_complete)

    @property
    def as_of(self) -> datetime:
        return self._as_of

    @property
    def progress(self) -> Progress:
        return self._progress

    @property
    def steps(self) -> Sequence[Step]:
        return self._steps

    @property
    def spec(self) -> str:
        return self.layout.spec.text

    @property
    def parameter_values(self) -> Mapping[str, Sequence[Any]]:
        return self.layout.spec.parameter_values

    @property
    def sample_columns(self) -> Sequence[str] | None:
        return self.layout.spec.sample_columns

    @property
    def sample_count(self) -> int | None:
        return self.layout.sample_count

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        layout = self.layout
        return self._columns.size + len(layout.spec.text) + _LAYOUT_BYTES * (len(layout.groups) + len(self._steps))

    def task(self, path: str) -> Task | None:
        index = self._index_of(path)
        return None if index is None else self.task_at(index)

    def task_at(self, index: int) -> Task:
        entry = self._columns.entry(index)
        layout, extra = self.layout, index - self.layout.count
        if extra >= 0:
            path, step = self._columns.extra_paths[extra], self._columns.extra_steps[extra]
            group = layout.group_at(path)
            sample = None
        else:
            group = layout.group_of(index)
            path, step = layout.path_of(index), group.step
            sample = index - group.first if group.uses_samples else None
        return Task(
            step=layout.spec.steps[step].name,
            path=path,
            status=entry.status,
            return_code=entry.return_code,
            restarts=entry.restarts,
            run_time=None if entry.run_time is None else float(entry.run_time),
            elapsed=None if entry.elapsed is None else float(entry.elapsed),
            workers=entry.workers,
            parameters=None if group is None else group.parameters,
            sample_index=sample,
        )

    def log_name(self, path: str) -> str | None:
        """What the scripts and logs of a task are named by, without suffixes; None if there is no such task."""
        if self._index_of(path) is None:
            return None
        group = self.layout.group_at(path)
        return None if group is None else group.log_name

    def indexes_of(self, step: int) -> Sequence[Sequence[int]]:
        """Of the tasks of a step that were foreseen, and of the others."""
        return range(self.layout.starts[step], self.layout.starts[step + 1]), self._extras.get(step, ())

    def column(self, step: int, name: str) -> Sequence[Any]:
        """One field of the tasks of a step, in their order."""
        found: list[Any] = []
        for indexes in self.indexes_of(step):
            column = self._columns.column(name, indexes)
            found += [getattr(self.task_at(index), name) for index in indexes] if column is None else column
        return found

    def combinations(self, step: int) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        """How many tasks of a step that follow each other have the same parameters, and these."""
        for group in self.layout.groups_of(step):
            yield group.samples.count, group.parameters
        for index in self._extras.get(step, ()):
            group_of_it = self.layout.group_at(self._path_of(index))
            yield 1, None if group_of_it is None else group_of_it.parameters

    def changed_since(self, earlier: Workspace) -> Sequence[str] | None:
        if not isinstance(earlier, WorkspaceContent) or earlier.layout is not self.layout:
            return None
        before, now = earlier._columns, self._columns  # noqa: SLF001 - of the same class
        count = len(before.states)
        changed = list(range(count, len(now.states)))
        if now.state_values[: len(before.state_values)] != before.state_values:
            return None
        views = list(zip(before.views, now.views, strict=True))
        for start in range(0, count, _CHUNK):
            end = min(start + _CHUNK, count)
            different = [(first, second) for first, second in views if first[start:end] != second[start:end]]
            if different:
                changed += [
                    index
                    for index in range(start, end)
                    if any(first[index] != second[index] for first, second in different)
                ]
        return [self._path_of(index) for index in sorted(changed)]

    def _path_of(self, index: int) -> str:
        extra = index - self.layout.count
        return self._columns.extra_paths[extra] if extra >= 0 else self.layout.path_of(index)

    def _index_of(self, path: str) -> int | None:
        index = self.layout.index_of(path)
        return self._columns.extra_index.get(path) if index is None else index


class _TasksOfStep(Sequence[Task]):
    def __init__(self, content: WorkspaceContent, step: int) -> None:
        self._content = content
        self._step = step

    def __len__(self) -> int:
        return sum(map(len, self._content.indexes_of(self._step)))

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        foreseen, others = self._content.indexes_of(self._step)
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        is_foreseen = number < len(foreseen)
        return self._content.task_at(foreseen[number] if is_foreseen else others[number - len(foreseen)])

    def column(self, name: str) -> Sequence[Any]:
        return self._content.column(self._step, name)

    def combinations(self) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        return self._content.combinations(self._step)

    def __iter__(self) -> Iterator[Task]:
        for indexes in self._content.indexes_of(self._step):
            yield from map(self._content.task_at, indexes)


def _progress(counts: Mapping[TaskStatus, int], as_of: datetime, *, total_is_known: bool) -> Progress:
    counts = {status: count for status, count in counts.items() if count}
    return Progress(counts, sum(counts.values()) if total_is_known else None, Source.WORKSPACE_FILES, as_of)
