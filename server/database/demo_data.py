"""Sample records: a small laboratory to explore, and any number of runs to measure.

The same time and seed give the same records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from random import Random
from typing import NamedTuple, TypeAlias
from uuid import UUID

from server.database.json_text import JSON, read_json, write_json
from server.database.models import (
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
)

_Fleet: TypeAlias = Sequence[tuple[str, WorkerStatus]]  # hosts, and how the physical worker there is doing


class Worker(NamedTuple):
    name: str
    queues: tuple[str, ...]
    concurrency: int
    fleet: str = ""
    """A letter of `_FLEET` for each physical worker."""

    @property
    def merlin_queues(self) -> tuple[str, ...]:
        return tuple(sorted(f"[merlin]_{queue}" for queue in self.queues))

    @property
    def id(self) -> str:
        return LogicalWorkerModel.generate_id(self.name, self.merlin_queues)


class Study(NamedTuple):
    name: str
    users: tuple[str, ...]
    workers: tuple[str, ...]
    steps: tuple[str, ...]
    history: str
    """A letter of `_HISTORY` for each run, the oldest first."""
    parameters: Mapping[str, Sequence[float | str]]
    queues: tuple[str, ...]
    """That of each step, without Merlin's tag."""
    samples: int = 0
    sampled: str = ""
    """The step that has a task for each sample."""
    iterative: bool = False
    id: str = ""
    """Drawn when its records are made."""

    def queue_of(self, step: str) -> str:
        """As Merlin stores it, with its tag."""
        return f"[merlin]_{self.queues[self.steps.index(step)]}"


_FLEET = dict(zip("RSXB?", WorkerStatus, strict=True))  # X: stopped, B: rebooting
_HISTORY = dict(zip("IQRCXF?", RunStatus, strict=True))  # X: cancelled

WORKERS = (
    Worker("hydra_sim", ("hydra_sim", "hydra_setup"), 36, "RRRSX"),
    Worker("postprocess", ("extract", "collect", "plots"), 8, "RRS"),
    Worker("surrogate_train", ("train", "validate"), 4, "RB"),
    Worker("opacity_tables", ("opacity",), 56, "XX"),
    Worker("laser_optimizer", ("propose", "laser_sim"), 18, "RRB"),
    Worker("hello", ("hello",), 2, "SX"),  # so its runs are stuck
    Worker("eos_sim", ("eos", "eos_collect"), 36, "RRS"),
    Worker("learn", ("learn", "make_samples", "predict"), 1),  # set up, and never started
)

STUDIES = (
    Study(
        "icf_capsule_sweep",
        ("rivera12", "okafor3"),
        ("hydra_sim", "postprocess"),
        ("make_mesh", "run_hydra", "extract_yield", "collect"),
        "CCFCCCXCCCFRRQI",
        {"CAPSULE_RADIUS_UM": [850.0, 950.0, 1050.0, 1150.0], "ABLATOR": ["CH", "HDC", "Be"]},
        ("hydra_setup", "hydra_sim", "extract", "collect"),
        samples=10,
        sampled="run_hydra",
    ),
    Study(
        "opacity_surrogate",
        ("lindqvist1",),
        ("opacity_tables", "surrogate_train"),
        ("sample_tables", "compute_opacity", "train_model", "validate_model"),
        "CFCXCCCC",
        {"HIDDEN_LAYERS": [3, 5, 8], "LEARNING_RATE": [0.01, 0.001, 0.0003]},
        ("opacity", "opacity", "train", "validate"),
        samples=12,
        sampled="compute_opacity",
    ),
    Study(
        "laser_pulse_optimization",
        ("okafor3",),
        ("laser_optimizer", "hydra_sim", "postprocess"),
        ("propose_pulse", "run_hydra", "score", "iterate"),
        "CCCCCCCR",
        {"PEAK_POWER_TW": [380.0, 410.0, 440.0], "FOOT_LENGTH_NS": [4.5, 5.0, 5.5]},
        ("propose", "hydra_sim", "extract", "laser_sim"),
        samples=8,
        sampled="run_hydra",
        iterative=True,
    ),
    Study(
        "hello_samples",
        ("tanaka7", "rivera12", "novak5"),
        ("hello",),
        ("step_1", "step_2"),
        "CFXCCI",
        {"GREET": ["hello", "hola"], "WORLD": ["world", "mundo"]},
        ("hello", "hello"),
        samples=5,
        sampled="step_1",
    ),
    Study(
        "eos_uncertainty",
        ("novak5",),
        ("eos_sim", "postprocess", "surrogate_train"),
        ("build_eos", "shock_run", "collect", "fit_posterior"),
        "CCCFCXRQ",
        {"MATERIAL": ["deuterium", "carbon", "tungsten"]},
        ("eos", "eos", "eos_collect", "train"),
        samples=10,
        sampled="shock_run",
    ),
    Study(
        "feature_demo",
        ("tanaka7",),
        ("hello", "learn"),
        ("hello", "collect", "translate", "learn", "make_new_samples", "predict", "verify"),
        "CCQ",
        {"X2": [0.5, 1.0], "N_NEW": [10, 20]},
        ("hello", "hello", "hello", "learn", "make_samples", "predict", "hello"),
    ),
)

HOSTS = ("quartz12", "quartz13", "quartz47", "quartz188", "ruby204", "ruby205", "ruby960")

_DAY, _HOUR, _MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
_THREE_WEEKS = 21 * _DAY

_ACTIVE_AGES = {  # of a run that is not finished: the oldest, the newest, as runs of `demo_life` take some minutes
    RunStatus.RUNNING: (8 * _MINUTE, 3 * _MINUTE),
    RunStatus.QUEUED: (2.5 * _MINUTE, 1.5 * _MINUTE),
    RunStatus.INITIALIZED: (_MINUTE, _MINUTE / 2),
}
_FINISHED_AGES = (_THREE_WEEKS, _DAY)
_BARE = 0.2  # the share of runs with no more than Merlin itself fills in
_SILENCE = {  # since a physical worker's heartbeat: the longest, the shortest
    WorkerStatus.RUNNING: (_MINUTE / 3, _MINUTE / 60),
    WorkerStatus.STALLED: (9 * _HOUR, 2 * _HOUR),
    WorkerStatus.STOPPED: (10 * _DAY, _DAY),
    WorkerStatus.REBOOTING: (2 * _MINUTE, _MINUTE / 2),
}


def demo_records(now: datetime, seed: int = 2026) -> list[Model]:
    """A laboratory's past three weeks, seen at a naive local time, with every status of Merlin's."""
    make = Maker(now, seed)
    specs = {spec.name: spec for spec in WORKERS}
    studies: list[Model] = []
    runs: list[RunModel] = []
    workers: list[Model] = []
    for row in STUDIES:
        study = row._replace(id=make.id())
        crew = [specs[name] for name in study.workers]
        own = [make.run(study, crew, status, age) for status, age in make.history(study.history)]
        runs += _chained(own) if study.iterative else own
        studies.append(_study(study, [run.id for run in own]))
    for spec in WORKERS:
        hosts = make.rng.sample(HOSTS, len(spec.fleet))
        fleet = [(host, _FLEET[letter]) for host, letter in zip(hosts, spec.fleet, strict=True)]
        workers += make.workers(spec, [run.id for run in runs if spec.id in run.workers], fleet)
    return [*studies, *runs, *workers]


def bulk_records(now: datetime, runs: int, seed: int = 2026) -> Iterator[Model]:
    """So many runs, one at a time; then the studies and workers, which hold the runs' ids."""
    make = Maker(now, seed)
    crew = [WORKERS[n % len(WORKERS)]._replace(name=f"worker_{n:02}") for n in range(60)]
    rows = (STUDIES[n % len(STUDIES)] for n in range(runs // 200 + 1))
    studies = [row._replace(name=f"{row.name}_{n:04}", id=make.id()) for n, row in enumerate(rows)]
    finished = [_HISTORY[letter] for letter in "CCCCCCCXFF"]
    run_ids: defaultdict[str, list[str]] = defaultdict(list)
    for n, age in enumerate(make.ages(_THREE_WEEKS, timedelta(), runs)):
        study = studies[n % len(studies)]
        status = make.rng.choice(finished if age > _DAY else [*_ACTIVE_AGES])
        run = make.run(study, make.rng.sample(crew, 3), status, age)
        for id_ in (study.id, *run.workers):
            run_ids[id_].append(run.id)
        yield run
    for study in studies:
        yield _study(study, run_ids[study.id])
    for n, spec in enumerate(crew):
        fleet = [(f"quartz{2 * n + k}", make.rng.choice([*_SILENCE])) for k in (1, 2)]
        yield from make.workers(spec, run_ids[spec.id], fleet)


class Maker:
    """What both have in common: records drawn at random, as seen at one time."""

    def __init__(self, now: datetime, seed: int) -> None:
        self.now = now
        self.rng = Random(seed)  # noqa: S311 - sample data, the same each time; no secret

    def id(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def ages(self, oldest: timedelta, newest: timedelta, count: int) -> Iterator[timedelta]:
        """So many ages from the oldest on, irregular, yet apart: a workspace tells its time in seconds."""
        for n in range(count):
            yield oldest - (oldest - newest) * ((n + 0.9 * self.rng.random()) / count)

    def history(self, letters: str) -> Iterator[tuple[RunStatus, timedelta]]:
        statuses = [_HISTORY[letter] for letter in letters]
        for (oldest, newest), group in groupby(statuses, lambda s: _ACTIVE_AGES.get(s, _FINISHED_AGES)):
            alike = list(group)
            yield from zip(alike, self.ages(oldest, newest, len(alike)), strict=True)

    def run(self, study: Study, crew: Sequence[Worker], status: RunStatus, age: timedelta) -> RunModel:
        user = self.rng.choice(study.users)
        workspace = f"/p/lustre1/{user}/merlin/studies/{study.name}_{self.now - age:%Y%m%d-%H%M%S}"
        run = RunModel(
            id=self.id(),
            workspace=workspace,
            study_id=study.id,
            steps=study.steps,
            queues=tuple(dict.fromkeys(queue for worker in crew for queue in worker.merlin_queues)),
            workers=tuple(worker.id for worker in crew),
            run_status=status,
        )
        if status is RunStatus.INITIALIZED or self.rng.random() < _BARE:
            return run
        about: JSON = {"user": user, "batch_job": self.rng.randrange(10**6, 10**7)}
        if status is RunStatus.FAILED:
            about |= {"failed_step": self.rng.choice(study.steps), "return_code": "MERLIN_HARD_FAIL"}
        elif status is RunStatus.CANCELLED:
            about |= {"cancelled_by": user}
        parameters = {
            name: {"values": values[: self.rng.randint(1, len(values))], "label": f"{name}.%%"}
            for name, values in study.parameters.items()
        }
        samples: JSON = {}
        if study.samples:
            samples = {"count": study.samples, "file": f"{workspace}/merlin_info/samples.npy"}
        return replace(
            run,
            parameters=write_json(parameters),
            samples=write_json(samples),
            additional_data=write_json(about),
        )

    def workers(self, spec: Worker, run_ids: Sequence[str], fleet: _Fleet) -> list[Model]:
        """A logical worker, and a physical one for each host and status of the fleet."""
        physical = [self.physical_worker(spec, host, status) for host, status in fleet]
        logical = LogicalWorkerModel(
            id=spec.id,
            name=spec.name,
            queues=spec.merlin_queues,
            runs=tuple(run_ids),
            physical_workers=tuple(worker.id for worker in physical),
        )
        return [logical, *physical]

    def physical_worker(self, spec: Worker, host: str, status: WorkerStatus) -> PhysicalWorkerModel:
        longest, shortest = _SILENCE[status]
        heartbeat = self.now - shortest - (longest - shortest) * self.rng.random()
        queues = ",".join(spec.merlin_queues)
        nodes = self.rng.choice((1, 2, 4))
        celery = f"celery -A merlin worker --concurrency {spec.concurrency} --prefetch-multiplier 1 -O fair"
        return PhysicalWorkerModel(
            id=self.id(),
            name=f"celery@{spec.name}.%{host}",
            logical_worker_id=spec.id,
            launch_cmd=f"srun -N {nodes} -n {nodes} {celery} -n {spec.name}.%%h -l INFO -Q '{queues}'",
            args=write_json({"concurrency": spec.concurrency, "prefetch_multiplier": 1, "optimization": "fair"}),
            pid=None if status is WorkerStatus.STOPPED else str(self.rng.randrange(4000, 200_000)),
            worker_status=status,
            heartbeat_timestamp=heartbeat,
            latest_start_time=heartbeat - _HOUR - 2 * _DAY * self.rng.random(),
            host=host,
            restart_count=self.rng.choice((0, 0, 0, 1, 2)) + (status is WorkerStatus.REBOOTING),
        )


def _study(study: Study, run_ids: Sequence[str]) -> StudyModel:
    about = {"owner": study.users[0], "spec": f"{study.name}.yaml"}
    return StudyModel(id=study.id, name=study.name, runs=tuple(run_ids), additional_data=write_json(about))


def _chained(runs: Sequence[RunModel]) -> Iterator[RunModel]:
    """The runs as iterations: each the parent of the next."""
    ids = [None, *(run.id for run in runs), None]
    for n, run in enumerate(runs):
        about = {**read_json(run.additional_data), "iteration": n + 1}
        yield replace(run, parent=ids[n], child=ids[n + 2], additional_data=write_json(about))
