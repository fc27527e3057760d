"""Workspaces of the sample data's runs: the files that Merlin writes there, in a folder that takes the place of `/`.

Which tasks have come how far is computed from the moment alone, so that a moment can be shown at any time.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from server.database.demo_data import WORKERS
from server.database.demo_moments import Moment, Work
from server.database.models import RunModel, RunStatus
from server.work.demo_specification import samples, samples_content, samples_file, specification_text
from server.work.workspace.layout import Group, Layout
from server.work.workspace.spec import SUFFIX, parse
from server.work.workspace.status_file import NAME

LOG = logging.getLogger(__name__)

MAX_FINISHED = 8
"""Finished runs that keep their files."""
_AT_ONCE = 6
"""Tasks of a step that are at work at a time."""
_FAILS_SOFTLY = 0.004
"""The share of tasks that fail while their run goes on."""
_LINES = 40
"""Of a log."""

_WAITS, _RUNS = "WAITING", "RUNNING"
_SUCCEEDED, _CANCELLED, _HARD, _SOFT = "MERLIN_SUCCESS", "CANCELLED", "MERLIN_HARD_FAIL", "MERLIN_SOFT_FAIL"
_STATUSES = {_RUNS: "RUNNING", _SUCCEEDED: "FINISHED", _CANCELLED: "CANCELLED", _HARD: "FAILED", _SOFT: "FAILED"}


class _State(NamedTuple):
    """Of a task."""

    word: str = _WAITS
    """Its return code once it has one."""
    lines: int = 0
    """Of its log."""


class DemoWorkspaces(Work):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shown: dict[str, _Shown] = {}
        """By the name of the workspace."""
        self._finished: OrderedDict[str, RunModel] = OrderedDict()
        """Of these, in the order in which they ended."""

    def show(self, moment: Moment) -> None:
        run = moment.run
        try:
            shown = self._shown.get(run.workspace)
            if shown is None:
                shown = self._shown[run.workspace] = _Shown(self._folder, moment)
            shown.show(moment)
        except OSError as error:  # a full disk, or a folder that was cleared: written anew next time
            LOG.debug("The workspace of the run %s is not as it should be: %s", run.id, error)
            self._shown.pop(run.workspace, None)
        if run.run_status.is_finished:
            self._finished[run.workspace] = run
            while len(self._finished) > MAX_FINISHED:
                self.forget(next(iter(self._finished.values())))

    def forget(self, run: RunModel) -> None:
        self._finished.pop(run.workspace, None)
        shown = self._shown.pop(run.workspace, None)
        if shown is not None:
            shutil.rmtree(shown.directory, ignore_errors=True)


class _Shown:
    """The workspace of one run, and what was written there."""

    def __init__(self, folder: Path, moment: Moment) -> None:
        run, study = moment.run, moment.study
        self.directory = folder / run.workspace.lstrip("/")
        self._seed = run.id
        self._samples = samples(run, study)
        text = specification_text(run, study)
        self._layout = Layout(parse(text), study.samples or None)
        self._states: dict[int, _State] = {}
        """Of the tasks that do not wait, by their index."""
        self._workers = {step: _worker_of(moment, step) for step in study.steps}
        info = self.directory / "merlin_info"
        info.mkdir(parents=True, exist_ok=True)
        if study.samples:
            (info / Path(samples_file(run)).name).write_bytes(samples_content(run, study))
        (info / f"{study.name}{SUFFIX}").write_text(text)

    def show(self, moment: Moment) -> None:
        """Writes what is different."""
        step = _number_of_step(moment)
        for group in self._layout.groups:
            if group.step > step:
                return
            states = {
                index: _SUCCESS if group.step < step else self._state(moment, index)
                for index in range(group.first, group.end)
            }
            self._write(group, {index: self._softened(group, index, states[index]) for index in states})

    def _state(self, moment: Moment, index: int) -> _State:
        """Of a task of the step that is at work. Its tasks begin one after the other."""
        status, step = moment.run.run_status, _number_of_step(moment)
        first, end = self._layout.starts[step], self._layout.starts[step + 1]
        count, number = end - first, index - first
        at_once = min(_AT_ONCE, count)
        position = min(moment.share * (count + at_once - 1) + 1 - at_once, count - 0.05)
        own = (position - number + at_once - 1) / at_once
        if own < 0:
            return _WAITING
        if own >= 1:
            return _SUCCESS
        lines = max(int(own * _LINES), 1)
        if status is RunStatus.FAILED:
            return _State(_HARD, lines) if number == max(int(position), 0) else _SUCCESS
        return _State(_CANCELLED if status is RunStatus.CANCELLED else _RUNS, lines)

    def _softened(self, group: Group, index: int, state: _State) -> _State:
        if state is not _SUCCESS or not group.uses_samples:
            return state
        drawn = Random(f"{self._seed}/{index}")  # noqa: S311 - sample data, the same each time; no secret
        return _State(_SOFT, _LINES // 2) if drawn.random() < _FAILS_SOFTLY else state

    def _write(self, group: Group, states: Mapping[int, _State]) -> None:
        changed = {index: state for index, state in states.items() if state != self._state_of(index)}
        if not changed:
            return
        other = {index: state for index, state in changed.items() if state.word != self._state_of(index).word}
        for index, state in changed.items():
            directory = self.directory / self._layout.path_of(index)
            if index not in self._states:
                directory.mkdir(parents=True, exist_ok=True)
            self._write_logs(directory / group.log_name, group, index, state)
        self._states |= changed
        if all(state.word not in (_WAITS, _RUNS) for state in states.values()):
            self._condense(group, states)
            return
        for index, state in other.items():
            self._write_status(self.directory / self._layout.path_of(index), group, {index: state})

    def _state_of(self, index: int) -> _State:
        """As it was written."""
        return self._states.get(index, _WAITING)

    def _condense(self, group: Group, states: Mapping[int, _State]) -> None:
        """All entries in one file, as Merlin has it once the samples of a group are done."""
        self._write_status(self.directory / group.directory, group, states)
        for index in states:
            directory = self.directory / self._layout.path_of(index)
            if directory != self.directory / group.directory:
                (directory / NAME).unlink(missing_ok=True)

    def _write_status(self, directory: Path, group: Group, states: Mapping[int, _State]) -> None:
        step = self._layout.spec.steps[group.step]
        worker = self._workers[step.name]
        content = {
            group.log_name: {
                "parameters": {"cmd": group.parameters, "restart": None},
                **{self._layout.path_of(index): _entry(index, state, worker) for index, state in states.items()},
                "task_queue": step.queue,
                "workers": [worker],
            }
        }
        (directory / NAME).write_text(json.dumps(content))

    def _write_logs(self, path: Path, group: Group, index: int, state: _State) -> None:
        """Those of a task grow; whoever follows one gets what is added to it."""
        before = self._states.get(index)
        if before is None:
            path.with_name(f"{path.name}.sh").write_text(f"#!/bin/bash\n\n{self._command(group, index)}\n")
        lines = "".join(_line(index, number) for number in range(0 if before is None else before.lines, state.lines))
        with path.with_name(f"{path.name}.out").open("w" if before is None else "a") as file:
            file.write(lines)
        error = _ERRORS.get(state.word, "")
        if before is None or error:
            path.with_name(f"{path.name}.err").write_text(error)

    def _command(self, group: Group, index: int) -> str:
        """That of a task, with the values of its parameters and of its sample."""
        command = self._layout.spec.steps[group.step].command or ""
        values = {**(group.parameters or {}), **(self._samples[index - group.first] if group.uses_samples else {})}
        for name, value in values.items():
            command = command.replace(f"$({name})", str(value))
        return command


_WAITING, _SUCCESS = _State(), _State(_SUCCEEDED, _LINES)
_ERRORS = {
    _HARD: "Traceback: the mesh is tangled in zone 4711; nothing can be saved.\nexit code 102\n",
    _SOFT: "The iteration does not converge: residual 3.1e-02 after 200 steps.\nexit code 101\n",
    _CANCELLED: "Terminated\n",
}


def _number_of_step(moment: Moment) -> int:
    """All before it are done; -1 before the first one."""
    if moment.run.run_status is RunStatus.COMPLETED:
        return len(moment.study.steps)
    return -1 if moment.step is None else moment.study.steps.index(moment.step)


def _worker_of(moment: Moment, step: str) -> str:
    """The name of the one that serves the queue of a step."""
    queue = moment.study.queues[moment.study.steps.index(step)]
    return next(worker.name for worker in WORKERS if worker.name in moment.study.workers and queue in worker.queues)


def _entry(index: int, state: _State, worker: str) -> Mapping[str, Any]:
    seconds = 2 + index * 7 % 11
    is_over = state.word != _RUNS
    return {
        "status": _STATUSES[state.word],
        "return_code": state.word if state.word.startswith("MERLIN") else None,
        "elapsed_time": f"0d:00h:00m:{seconds + 1:02}s" if is_over else "--:--:--",
        "run_time": f"0d:00h:00m:{seconds:02}s" if is_over else "--:--:--",
        "restarts": 0,
        "workers": [worker],
    }


def _line(index: int, number: int) -> str:
    energy = 40.0 + (index * 31 + number * 7) % 97 / 10
    residual = 10 ** (-number / 9)
    return (
        f"cycle {number * 25:5d}  t = {number * 0.125:6.3f} ns  energy = {energy:.2f} kJ  residual = {residual:.2e}\n"
    )
