"""Attendance: which logical workers and queues have a living process, whatever Merlin's records say of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from server.database.observations import Observations
from server.database.read_model import ReadModel

_OVERLAPPING = re.compile(r"celery@(?P<name>.+)\d{8}-\d{6}\.%.*", re.DOTALL)
"""The name that Merlin gives to a worker with `overlap: True`, which no record has: the worker's, and its start."""


@dataclass(frozen=True, slots=True)
class Attendance:
    """Who is alive."""

    logical_workers: Mapping[str, int]
    """How many processes each has, by its id; without zeros."""
    queues: Mapping[str, int]
    """How many processes serve each; without zeros."""
    has_busy_stranger: bool
    """Whether a process is at work of which no record tells which queues it serves."""

    def serves(self, queues: Iterable[str], logical_workers: Iterable[str]) -> bool:
        """Whether a process is alive for one of these."""
        return any(queue in self.queues for queue in queues) or any(
            id_ in self.logical_workers for id_ in logical_workers
        )


def attendance_of(read_model: ReadModel, observations: Observations) -> Attendance:
    """Looks at every process that was heard of."""
    alive = Counter(worker.name for worker in observations.workers() if worker.is_alive)
    owners = {name: _owners_of(read_model, name) for name in alive}
    overlapping = {
        name: match["name"] for name in alive if not owners[name] and (match := _OVERLAPPING.fullmatch(name))
    }
    if overlapping:
        wanted = _ids_by_name(read_model, set(overlapping.values()))
        owners |= {name: wanted[worker] for name, worker in overlapping.items()}
    processes: Counter[str] = Counter()
    for name, count in alive.items():
        # Merlin keeps one record for all processes of one name, and does not store which of its owners each serves.
        processes.update(dict.fromkeys(owners[name], -(-count // max(1, len(owners[name])))))
    queues: Counter[str] = Counter()
    for id_, count in processes.items():
        queues.update(dict.fromkeys(read_model.logical_workers.records[id_].queues, count))
    strangers = (worker for name in alive if not owners[name] for worker in observations.workers_named(name))
    return Attendance(processes, queues, any(worker.is_alive and worker.active_tasks != 0 for worker in strangers))


def _owners_of(read_model: ReadModel, name: str) -> set[str]:
    """The ids of the logical workers that a process of this name belongs to, by Merlin's records."""
    ids = read_model.physical_workers.ids_named(name)
    return {owner for id_ in ids for owner in read_model.instances.owners_of(id_)}


def _ids_by_name(read_model: ReadModel, names: set[str]) -> Mapping[str, set[str]]:
    """The ids of the logical workers of each of these names."""
    ids: dict[str, set[str]] = {name: set() for name in names}
    for worker in read_model.logical_workers.records.values():
        if worker.name in ids:
            ids[worker.name].add(worker.id)
    return ids
