"""The size of a response: how many bytes its large values take at most, by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from server.database.large_values import ANNOTATIONS, LargeField

Bytes: TypeAlias = Mapping[str, int]
"""By the coordinates of the fields that show the values."""

_CURSOR = 4
"""A cursor holds a name, with escapes for what is not ASCII, in base 64: it has so many times its bytes at most."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    "Run": ("run.workspace",),
    "Study": ("study.name",),
    "LogicalWorker": ("logical_worker.name",),
    "PhysicalWorker": ("physical_worker.name", "physical_worker.host"),
}
"""What cursors hold: what the entities of a type are ordered by."""
_CURSORS: Mapping[str, tuple[str, ...]] = {
    **{f"{type_}Edge.cursor": names for type_, names in _NAMES.items()},
    **dict.fromkeys(
        ("PageInfo.startCursor", "PageInfo.endCursor"), tuple(name for names in _NAMES.values() for name in names)
    ),
}
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "Study.name": ("study.name",),
    "Study.additionalData": ("study.additional_data",),
    "Study.annotations": (ANNOTATIONS,),
    "Run.workspace": ("run.workspace",),
    "Run.studyId": ("run.study_id",),
    "Run.queues": ("run.queues",),
    "Run.workerIds": ("run.workers",),
    "Run.steps": ("run.steps",),
    "Run.parameters": ("run.parameters",),
    "Run.samples": ("run.samples",),
    "Run.additionalData": ("run.additional_data",),
    "Run.annotations": (ANNOTATIONS,),
    "LogicalWorker.name": ("logical_worker.name",),
    "LogicalWorker.queues": ("logical_worker.queues",),
    "LogicalWorker.additionalData": ("logical_worker.additional_data",),
    "PhysicalWorker.name": ("physical_worker.name",),
    "PhysicalWorker.host": ("physical_worker.host",),
    "PhysicalWorker.pid": ("physical_worker.pid",),
    "PhysicalWorker.launchCommand": ("physical_worker.launch_cmd",),
    "PhysicalWorker.args": ("physical_worker.args",),
    "PhysicalWorker.logicalWorkerId": ("physical_worker.logical_worker_id",),
    "PhysicalWorker.additionalData": ("physical_worker.additional_data",),
    "Run.spec": ("workspace.spec",),
    "Run.parameterValues": ("workspace.parameter_values",),
    "Run.sampleColumns": ("workspace.sample_columns",),
    "StepRun.command": ("step.command",),
    "StepRun.description": ("step.description",),
    "StepRun.dependsOn": ("step.depends_on",),
    "Task.parameters": ("workspace.parameter_values",),
    "QueueCount.queue": ("run.queues", "logical_worker.queues"),
    **_CURSORS,
}
"""The fields, stored or in workspaces, that each field shows one of."""
_REPEATED = frozenset({"Task.parameters"})
"""Fields whose values are the same for many objects."""
_UNBOUNDED = 2**62


class Large(NamedTuple):
    """What a field of the schema shows, in bytes."""

    largest: int
    total: int
    """Of all different entities together."""


def shown(fields: Iterable[LargeField]) -> Mapping[str, Large]:
    """The large values by the coordinates of the fields that show them."""
    stored = {one.name: one for one in fields}
    if not stored:
        return {}
    found = {}
    for coordinate, names in _SHOWN.items():
        if values := [stored[name] for name in names if name in stored]:
            times = _CURSOR if coordinate in _CURSORS else 1
            largest, total = max(value.largest for value in values), sum(value.total for value in values)
            found[coordinate] = Large(times * largest, _UNBOUNDED if coordinate in _REPEATED else times * total)
    return found


@dataclass(frozen=True, slots=True)
class ResponseSize:
    """The large values of a selection set."""

    own: Mapping[str, int] = field(default_factory=dict)
    """How often the object itself shows each large value; the bytes depend on how many objects there are."""
    inside: Bytes = field(default_factory=dict)
    """Of the objects in it."""
    paged: Bytes = field(default_factory=dict)
    """Of what a connection has once for each entity of its page."""

    @property
    def total(self) -> int:
        """Bytes, without its own values."""
        return sum(self.inside.values()) + sum(self.paged.values())

    def __add__(self, other: ResponseSize) -> ResponseSize:
        if other is EMPTY:
            return self
        if self is EMPTY:
            return other
        return ResponseSize(_sum(self.own, other.own), _sum(self.inside, other.inside), _sum(self.paged, other.paged))

    def of_page(self) -> ResponseSize:
        """As a connection's `nodes` or `edges` has it."""
        return self if self is EMPTY else ResponseSize(self.own, paged=self.inside)

    def times(self, size: int, large: Mapping[str, Large], *, is_connection: bool, is_distinct: bool) -> ResponseSize:
        """Of so many objects, or of a connection with so many entities. `is_distinct`: none of them occurs twice."""
        if self is EMPTY:
            return self
        bytes_ = {
            coordinate: times * min(size * large[coordinate].largest, large[coordinate].total)
            if is_distinct
            else times * size * large[coordinate].largest
            for coordinate, times in self.own.items()
        }
        once = self.inside if is_connection else _scaled(self.inside, size)
        return ResponseSize(inside=_sum(_sum(bytes_, once), _scaled(self.paged, size)))


EMPTY = ResponseSize()


def _sum(one: Bytes, other: Bytes) -> Bytes:
    if not one or not other:
        return one or other
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}


def _scaled(one: Bytes, times: int) -> Bytes:
    return {key: times * value for key, value in one.items()}
