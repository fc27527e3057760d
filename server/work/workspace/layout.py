"""Which tasks a run will have, and in which directories: one for each combination of parameters and each sample."""

from __future__ import annotations

import string
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from server.work.workspace.sample_paths import SamplePaths
from server.work.workspace.spec import Spec, SpecError, StepSpec

MAX_TASKS = 5_000_000
_MAX_GROUPS = 500_000
_MAX_PARENTS = 50_000
_IN_NAMES = frozenset(f"-_.() {string.ascii_letters}{string.digits}")


@dataclass(frozen=True, slots=True)
class Group:
    """The tasks of a step for one combination of its parameters."""

    step: int
    directory: str
    """Below the workspace, such as `sim/TEMP.300`."""
    log_name: str
    """Such as `sim_TEMP.300`: scripts and logs are named so."""
    parameters: Mapping[str, Any] | None
    first: int
    """The index of its first task."""
    samples: SamplePaths
    """Of a single one for a step that uses none."""
    uses_samples: bool

    @property
    def end(self) -> int:
        return self.first + self.samples.count


class Layout:
    """Tasks have indexes: those of a step follow each other, by parameters, then by sample."""

    def __init__(self, spec: Spec, sample_count: int | None) -> None:
        """Without a number of samples no task of a step that uses them is foreseen. Raises `SpecError`."""
        self.spec = spec
        self.sample_count = sample_count
        try:
            samples = SamplePaths.of(sample_count or 0, spec.level_max_dirs)
        except ValueError as error:
            raise SpecError(str(error)) from None
        single = SamplePaths.of(1, spec.level_max_dirs)
        groups: list[Group] = []
        self.starts: list[int] = []
        """The index of the first task of each step, and the number of all tasks."""
        first = 0
        for number, step in enumerate(spec.steps):
            self.starts.append(first)
            for directory, log_name, parameters in _combinations(spec, step):
                paths = samples if step.uses_samples else single
                groups.append(Group(number, directory, log_name, parameters, first, paths, step.uses_samples))
                first = groups[-1].end
                if first > MAX_TASKS or len(groups) > _MAX_GROUPS:
                    raise SpecError(f"it has more than {MAX_TASKS} tasks")
        self.starts.append(first)
        self.groups: Sequence[Group] = groups
        self.by_directory: Mapping[str, Group] = {group.directory: group for group in groups}
        self._firsts = [group.first for group in groups]
        self._parents: dict[str, tuple[int, int]] = {}
        """The first task, and the number of tasks, of directories that hold those of samples."""
        most = min(samples.level_max_dirs, sample_count or 0)
        self._numbers = {str(number).zfill(samples.digits): number for number in range(min(most, _MAX_PARENTS))}

    @property
    def count(self) -> int:
        """Of the tasks that are foreseen."""
        return self.starts[-1]

    @property
    def is_complete(self) -> bool:
        """Whether all tasks are foreseen."""
        return self.sample_count is not None or not any(step.uses_samples for step in self.spec.steps)

    def group_of(self, index: int) -> Group:
        group = self.groups[bisect_right(self._firsts, index) - 1]
        assert group.first <= index < group.end
        return group

    def groups_of(self, step: int) -> Sequence[Group]:
        of_step = attrgetter("step")
        return self.groups[bisect_left(self.groups, step, key=of_step) : bisect_right(self.groups, step, key=of_step)]

    def path_of(self, index: int) -> str:
        group = self.group_of(index)
        inner = group.samples.path(index - group.first)
        return f"{group.directory}/{inner}" if inner else group.directory

    def index_of(self, path: str) -> int | None:
        parent, _, name = path.rpartition("/")
        if (found := self._parents.get(parent)) is not None:
            first, count = found
            number = self._numbers.get(name, count)
            return first + number if number < count else None
        group = self.group_at(path)
        if group is None:
            return None
        sample = group.samples.sample(path[len(group.directory) + 1 :])
        if sample is None:
            return None
        if name in self._numbers and group.samples.sizes and len(self._parents) < _MAX_PARENTS:
            start = sample - self._numbers[name]
            count = min(len(self._numbers), group.samples.count - start)
            self._parents[parent] = group.first + start, count
        return group.first + sample

    def group_at(self, path: str) -> Group | None:
        """The group to which a directory belongs."""
        step, _, rest = path.partition("/")
        return self.by_directory.get(step) or self.by_directory.get(f"{step}/{rest.partition('/')[0]}")


def _combinations(spec: Spec, step: StepSpec) -> list[tuple[str, str, Mapping[str, Any] | None]]:
    """The directory, the name of logs and the parameters for each; one of the same directory counts once."""
    step_directory = safe_name(step.name)
    names = sorted(step.parameters)
    if not names:
        return [(step_directory, safe_name(step.name), None)]
    found: dict[str, tuple[str, str, Mapping[str, Any] | None]] = {}
    for number in range(spec.combinations):
        labels = ".".join(spec.parameter_labels[name][number] for name in names)
        directory = f"{step_directory}/{safe_name(labels)}"
        if directory not in found:
            values = {name: spec.parameter_values[name][number] for name in names}
            found[directory] = directory, safe_name(f"{step.name}_{labels}"), values
    return list(found.values())


def safe_name(name: str) -> str:
    """The name of a directory, as Maestro makes it of any text."""
    return "".join(character for character in name if character in _IN_NAMES).replace(" ", "_")
