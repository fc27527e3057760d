"""Sizes: how many records the copy has, and how many of one kind an entity has at most."""

from __future__ import annotations

from typing import NamedTuple

from server.database.large_values import LargeField
from server.database.models import EntityKind
from server.database.read_model import ReadModel
from server.database.workspace_sizes import WorkspaceSizes

_DIGITS = 8
"""Significant binary digits of a number of bytes."""


class Sizes(NamedTuple):
    """Upper bounds. Those of one entity are the largest since the records were last indexed as a whole."""

    studies: int
    runs: int
    logical_workers: int
    physical_workers: int
    queues: int
    """Different queues."""
    runs_of_study: int
    runs_of_worker: int
    workers_of_run: int
    instances_of_worker: int
    """Physical workers of a logical one."""
    live_workers: int = 1
    """Processes of which this server heard, even if no record names them."""
    changes_of_run: int = 1
    """Of its status."""
    steps_of_run: int = 0
    """Of a run whose workspace was read."""
    tasks_of_run: int = 0
    tasks_of_step: int = 0
    sample_columns: int = 0
    large: tuple[LargeField, ...] = ()
    """The fields that have large values."""

    @property
    def workers_of_study(self) -> int:
        return min(self.logical_workers, self.runs_of_study * self.workers_of_run)

    @property
    def records(self) -> int:
        return self.studies + self.runs + self.logical_workers + self.physical_workers

    @property
    def rounded(self) -> Sizes:
        """No smaller, at most an eighth larger, and seldom another one: what depends on it can be remembered."""
        *counts, _ = self
        return Sizes._make([*map(rounded, counts), tuple(map(_rounded_field, self.large))])


def rounded(size: int, digits: int = 4) -> int:
    """The next number with at most so many significant binary digits."""
    shift = max(0, size.bit_length() - digits)
    return -(-size >> shift) << shift


def _rounded_field(field: LargeField) -> LargeField:
    """At most a hundredth larger: what an answer may have in bytes is not much more than what one answer takes."""
    return LargeField(field.name, rounded(field.largest, _DIGITS), rounded(field.total, _DIGITS))


def sizes_of(
    model: ReadModel,
    observed: WorkspaceSizes = WorkspaceSizes(),  # noqa: B008 - never changed
    live_workers: int = 0,
) -> Sizes:
    return Sizes(
        studies=len(model.studies),
        runs=len(model.runs),
        logical_workers=len(model.logical_workers),
        physical_workers=len(model.physical_workers),
        queues=len(model.queues[EntityKind.RUN]) + len(model.queues[EntityKind.LOGICAL_WORKER]),
        runs_of_study=model.study_runs.most_members,
        runs_of_worker=model.worker_runs.most_members,
        workers_of_run=model.worker_runs.most_owners,
        instances_of_worker=model.instances.most_members,
        live_workers=live_workers,
        changes_of_run=model.histories.longest,
        steps_of_run=observed.steps,
        tasks_of_run=observed.tasks,
        tasks_of_step=observed.tasks_of_step,
        sample_columns=observed.sample_columns,
        large=(*model.large.fields, *(LargeField(name, *text) for name, text in observed.large.items())),
    )
