"""Moments of the work on a run of the sample data: how far it is, which the record alone does not tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from random import Random
from typing import NamedTuple, Protocol

from server.database.demo_data import STUDIES, Study
from server.database.json_text import read_json
from server.database.models import Model, RunModel, RunStatus, StudyModel

_RECENT = 6
"""Finished runs whose work is shown, too: those that were launched last."""
_NOT_STARTED = (RunStatus.INITIALIZED, RunStatus.QUEUED)

_STUDIES = {study.name: study for study in STUDIES}


class Moment(NamedTuple):
    run: RunModel
    study: Study
    step: str | None
    """The step that is at work, or was when the run ended; None before the first one, and for a run that completed."""
    share: float = 0.0
    """Of the time for that step, how much is over: from 0 to 1."""


class Work(Protocol):
    """Shows the work on runs."""

    def show(self, moment: Moment) -> None:
        """What was shown of the run before, and differs, is replaced."""

    def forget(self, run: RunModel) -> None:
        """The run is deleted."""


def study_of(run: RunModel, name: str | None) -> Study | None:
    """The study of the sample data, by its name; None where somebody else has made the study, or the run."""
    study = None if name is None else _STUDIES.get(name)
    return study if study is not None and run.steps == study.steps else None


def step_of(run: RunModel) -> str | None:
    """See `Moment.step`. A run that says nothing of it has reached any step, the same each time it is asked for."""
    if run.run_status in _NOT_STARTED or run.run_status is RunStatus.COMPLETED or not run.steps:
        return None
    about = read_json(run.additional_data)
    step = about.get("failed_step" if run.run_status is RunStatus.FAILED else "current_step")
    return str(step) if step in run.steps else _drawn(run).choice(run.steps[1:3] or run.steps)


def share_of(run: RunModel) -> float:
    """How much of its step is over when the demo begins."""
    return _drawn(run).uniform(0.3, 0.8)


def moments_at_start(records: Iterable[Model]) -> Iterator[Moment]:
    """Of the active runs and the latest finished ones, the oldest first."""
    records = list(records)
    names: Mapping[str | None, str] = {record.id: record.name for record in records if isinstance(record, StudyModel)}
    runs = sorted((record for record in records if isinstance(record, RunModel)), key=_launched_at)
    recent = {run.id for run in [run for run in runs if run.run_status.is_finished][-_RECENT:]}
    for run in runs:
        study = study_of(run, names.get(run.study_id))
        if study is not None and (run.id in recent or not run.run_status.is_finished):
            yield Moment(run, study, step_of(run), share_of(run))


def _drawn(run: RunModel) -> Random:
    return Random(run.id)  # noqa: S311 - sample data, the same each time; no secret


def _launched_at(run: RunModel) -> datetime:
    return run.launched_at or datetime.min  # noqa: DTZ901 - Merlin's times are naive
