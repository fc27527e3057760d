"""A snapshot: the records and links of the live copy at one revision, for work that takes several steps.

To take one is a single short step: records are never changed, only replaced, so the tables alone are copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from server.database.links import FrozenLinks
from server.database.models import (
    EntityKind,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
    UnreadableValue,
)
from server.database.ordered import SortKey
from server.database.read_model import ReadModel
from server.database.table import Table

Record = TypeVar("Record", bound=Model)


@dataclass(frozen=True, slots=True)
class FrozenTable(Generic[Record]):
    """The records of one kind."""

    records: Mapping[str, Record]
    order: Sequence[SortKey]
    name_owners: Mapping[str, str]
    """As in `Table`."""

    def __iter__(self) -> Iterator[Record]:
        """The records in the default order."""
        return (self.records[id_] for _, id_ in self.order)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The live copy at one revision."""

    studies: FrozenTable[StudyModel]
    runs: FrozenTable[RunModel]
    logical_workers: FrozenTable[LogicalWorkerModel]
    physical_workers: FrozenTable[PhysicalWorkerModel]
    problems: Mapping[Key, tuple[UnreadableValue, ...]]
    study_runs: FrozenLinks[StudyModel, RunModel]
    worker_runs: FrozenLinks[LogicalWorkerModel, RunModel]
    instances: FrozenLinks[LogicalWorkerModel, PhysicalWorkerModel]

    @property
    def tables(self) -> Mapping[EntityKind, FrozenTable[Any]]:
        return {
            EntityKind.STUDY: self.studies,
            EntityKind.RUN: self.runs,
            EntityKind.LOGICAL_WORKER: self.logical_workers,
            EntityKind.PHYSICAL_WORKER: self.physical_workers,
        }


def snapshot_of(copy: ReadModel) -> Snapshot:
    studies, workers = _frozen(copy.studies), _frozen(copy.logical_workers)
    return Snapshot(
        studies,
        _frozen(copy.runs),
        workers,
        _frozen(copy.physical_workers),
        copy.problems.copy(),
        copy.study_runs.frozen(studies.records),
        copy.worker_runs.frozen(workers.records),
        copy.instances.frozen(workers.records),
    )


def _frozen(table: Table[Record]) -> FrozenTable[Record]:
    return FrozenTable(table.records.copy(), table.order.copy(), table.name_owners)
