"""The records that Merlin stores: one frozen class for each kind, and how each of its fields is stored.

Fields have the names of Merlin 2.0.0b4; `backends.codec` maps older dialects to them. A new field needs a line in the
class of its kind and one in `STORED_FIELDS`; CONTRIBUTING.md has the other places.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from server.database.json_text import EMPTY, JSONText

_LAUNCHED = re.compile(r"_(\d{8}-\d{6})/*$")


class EntityKind(StrEnum):
    """The four kinds of records. The value is Merlin's name of the store, and the prefix of its keys."""

    STUDY = "study"
    RUN = "run"
    LOGICAL_WORKER = "logical_worker"
    PHYSICAL_WORKER = "physical_worker"


class RunStatus(StrEnum):
    INITIALIZED = "INITIALIZED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_finished(self) -> bool:
        return self in _FINISHED

    @property
    def is_active(self) -> bool:
        """Whether Merlin may work on the run, and write it again: it is QUEUED or RUNNING."""
        return self in _ACTIVE


_FINISHED = frozenset({RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.FAILED})
_ACTIVE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})


class WorkerStatus(StrEnum):
    RUNNING = "RUNNING"
    STALLED = "STALLED"
    STOPPED = "STOPPED"
    REBOOTING = "REBOOTING"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class StudyModel:
    id: str
    name: str
    runs: tuple[str, ...] = ()
    additional_data: JSONText = EMPTY


@dataclass(frozen=True, slots=True)
class RunModel:
    id: str
    workspace: str
    study_id: str | None = None
    steps: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    parent: str | None = None
    child: str | None = None
    run_status: RunStatus = RunStatus.INITIALIZED
    parameters: JSONText = EMPTY
    samples: JSONText = EMPTY
    additional_data: JSONText = EMPTY

    @property
    def launched_at(self) -> datetime | None:
        """The naive local time in the `_YYYYMMDD-HHMMSS` that ends a workspace; None without a valid one."""
        match = _LAUNCHED.search(self.workspace)
        if match is None:
            return None
        try:
            return datetime.fromisoformat(match[1])
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class LogicalWorkerModel:
    id: str
    name: str
    queues: tuple[str, ...] = ()
    """A set in Merlin: here sorted, without duplicates."""
    runs: tuple[str, ...] = ()
    physical_workers: tuple[str, ...] = ()
    additional_data: JSONText = EMPTY

    @staticmethod
    def generate_id(name: str, queues: Iterable[str]) -> str:
        """Merlin's rule (`LogicalWorkerModel.generate_id`, 1.13.0b1 to 2.0.0b4): MD5 as an identity, no secret."""
        text = f"{name}:{','.join(sorted(queues))}"
        digest = hashlib.md5(text.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()
        return str(uuid.UUID(hex=digest))


@dataclass(frozen=True, slots=True)
class PhysicalWorkerModel:
    id: str
    name: str
    logical_worker_id: str | None = None
    launch_cmd: str | None = None
    args: JSONText = EMPTY
    pid: str | None = None
    worker_status: WorkerStatus = WorkerStatus.STOPPED
    heartbeat_timestamp: datetime | None = None
    """Naive times are local to the site, as Merlin writes them."""
    latest_start_time: datetime | None = None
    host: str | None = None
    restart_count: int = 0
    additional_data: JSONText = EMPTY


class Shape(Enum):
    """How Merlin stores the value of a field."""

    ID = auto()
    """The record's own id."""
    NAME = auto()
    """A text that every record has; `null` and `123` are names, too."""
    TEXT = auto()
    REFERENCE = auto()
    """The id of another record, which many records share."""
    PID = auto()
    """A process id: Merlin reads `4242` as a number, and writes it back as `4242.0`."""
    COUNT = auto()
    """A whole number of 32 bits."""
    TIME = auto()
    JSON = auto()
    """An object or a list, as the text of its JSON."""
    ARGS = auto()
    """JSON, or a bare text."""
    TEXTS = auto()
    """A JSON list of texts."""
    SET = auto()
    """Merlin's JSON of a set of texts, `{"__set__": [...]}`."""
    RUN_STATUS = auto()
    WORKER_STATUS = auto()


STORED_FIELDS: Mapping[EntityKind, Mapping[str, Shape]] = MappingProxyType(
    {
        EntityKind.STUDY: {
            "additional_data": Shape.JSON,
            "id": Shape.ID,
            "name": Shape.NAME,
            "runs": Shape.TEXTS,
        },
        EntityKind.RUN: {
            "additional_data": Shape.JSON,
            "id": Shape.ID,
            "study_id": Shape.REFERENCE,
            "workspace": Shape.NAME,
            "steps": Shape.TEXTS,
            "queues": Shape.TEXTS,
            "workers": Shape.TEXTS,
            "parent": Shape.TEXT,
            "child": Shape.TEXT,
            "run_status": Shape.RUN_STATUS,
            "parameters": Shape.JSON,
            "samples": Shape.JSON,
        },
        EntityKind.LOGICAL_WORKER: {
            "additional_data": Shape.JSON,
            "name": Shape.NAME,
            "queues": Shape.SET,
            "id": Shape.ID,
            "runs": Shape.TEXTS,
            "physical_workers": Shape.TEXTS,
        },
        EntityKind.PHYSICAL_WORKER: {
            "additional_data": Shape.JSON,
            "id": Shape.ID,
            "logical_worker_id": Shape.REFERENCE,
            "name": Shape.NAME,
            "launch_cmd": Shape.TEXT,
            "args": Shape.ARGS,
            "pid": Shape.PID,
            "worker_status": Shape.WORKER_STATUS,
            "heartbeat_timestamp": Shape.TIME,
            "latest_start_time": Shape.TIME,
            "host": Shape.TEXT,
            "restart_count": Shape.COUNT,
        },
    }
)
"""How each field is stored, in the order in which Merlin writes them."""

LISTS: Mapping[EntityKind, tuple[str, ...]] = MappingProxyType(
    {
        EntityKind.STUDY: ("runs",),
        EntityKind.RUN: (),
        EntityKind.LOGICAL_WORKER: ("runs", "physical_workers"),
        EntityKind.PHYSICAL_WORKER: (),
    }
)
"""The fields that list the ids of what belongs to a record: they grow with the database."""

SAVED_BY_MERLIN = ("parent", "child", "run_status", "additional_data", "workers")
"""The fields of a run that may change, as in Merlin (`RunModel.fields_allowed_to_be_updated`)."""

Model: TypeAlias = StudyModel | RunModel | LogicalWorkerModel | PhysicalWorkerModel

MODELS: Mapping[EntityKind, type[Model]] = MappingProxyType(
    {
        EntityKind.STUDY: StudyModel,
        EntityKind.RUN: RunModel,
        EntityKind.LOGICAL_WORKER: LogicalWorkerModel,
        EntityKind.PHYSICAL_WORKER: PhysicalWorkerModel,
    }
)
KINDS: Mapping[type[Any], EntityKind] = MappingProxyType({model: kind for kind, model in MODELS.items()})


class Key(NamedTuple):
    """The place of a record: in Redis the key `<kind>:<id>`, in SQLite the row of that id."""

    kind: EntityKind
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True)
class UnreadableValue:
    """A stored value that can't be read; the record has a safe substitute in its place."""

    field: str | None
    """None where it is the record as a whole."""
    message: str
    fails_merlin: bool = False
    """Whether Merlin can't read the record because of it, or takes for a record what is none."""


class Entry(NamedTuple):
    """The content of a key: a record, nothing, or something unreadable. A record may have unreadable values."""

    key: Key
    record: Model | None
    problems: tuple[UnreadableValue, ...] = ()
    is_legacy: bool | None = False
    """Whether it is stored as a Merlin before 2.0.0b3 writes it; None where nothing in it tells."""


def name_of(record: Model) -> str | None:
    """The name that Merlin's name map holds for a record (a run's is its workspace); logical workers have none."""
    match record:
        case RunModel():
            return record.workspace
        case LogicalWorkerModel():
            return None
        case _:
            return record.name


def optional(id_: str | None) -> tuple[str, ...]:
    """An id, or none, as a sequence of ids."""
    return () if id_ is None else (id_,)


Record = TypeVar("Record", bound=Model)


def with_value(record: Record, field: str, value: Any) -> Record:
    """The record with one field changed, whose name is known at run time only."""
    changed: Record = replace(record, **{field: value})
    return changed
