"""What the tests of the compiler share: a world of faulty records, and the answers of both ways."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from enum import Enum
from random import Random
from typing import Any

import strawberry
from graphql import (
    GraphQLObjectType,
    OperationType,
    Undefined,
    get_named_type,
    is_leaf_type,
)

from schema.build import make_schema
from schema.changes import Change, LiveTick, LogChange, RunChange, TaskChange
from schema.compiler.accessors import Attribute, accessor_of
from schema.connections import Page
from schema.context import Context
from schema.cursors import write_cursor
from schema.effects import graphql_name
from schema.engine import Engine
from schema.limits import Limits
from schema.operation import GraphQLResponse, Operation, OperationError
from schema.roles import Role
from server.database.change_log import ChangeKind
from server.database.entities import (
    DatabaseEntity,
    LogicalWorkerEntity,
    PhysicalWorkerEntity,
    RunEntity,
    StudyEntity,
)
from server.database.merlin_database import MerlinDatabase
from server.database.models import (
    EntityKind,
    LogicalWorkerModel,
    RunStatus,
    WorkerStatus,
)
from server.database.run_tasks import RunTask, task_id
from server.database.workspaces import LogTail, Task, TaskStatus
from tests.support.documents import ASYNCHRONOUS, Asked, Words
from tests.support.records import logical_worker, physical_worker, run, uid

SCHEMA = make_schema()
UNLIMITED = Limits(
    bytes=10**12, cost=10**12, depth=10**3, tokens=10**6, characters=10**6, aliases=10**6, directives=10**6
)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


WORKERS = [
    logical_worker("sim", ("[merlin]_a",)),
    logical_worker("", ("[merlin]_b", "q")),
    logical_worker("\ud800", ()),
]
GONE = LogicalWorkerModel.generate_id("gone", ())


IDS = [uid(number) for number in (1, 2, 3, 11, 12, 13, 14, 21, 22, 23, 24, 99)] + [WORKERS[0].id, GONE]


FAULTY_TASKS = [
    RunTask(uid(11), Task("a", "a/\ud800", TaskStatus.UNKNOWN, None, None, 1, 2.5, (), {"X": None}, 2**31)),
    RunTask(uid(11), Task("", "", TaskStatus.FAILED, "", -1, float("inf"), None, ("w", ""), {}, 0)),
]


class Text(str):
    """Not plainly a text."""

    __slots__ = ()


class Lookalike(Enum):
    """No status, for all its names."""

    RUNNING = "running"
    FAILED = "failed"


def run_of(entity: Any) -> RunEntity:
    return RunEntity(run(11), entity._around)


def process_of(entity: Any) -> PhysicalWorkerEntity:
    return PhysicalWorkerEntity(physical_worker(23), entity._around)


def failure_of(entity: Any) -> Any:
    raise ZeroDivisionError(type(entity).__name__)


STRANGE: list[Any] = [
    *(None, Undefined, True, 0, 2**31, -(2**31) - 1, 1.5, float("nan"), float("inf"), "", "RUNNING", Text("x"), b"x"),
    *([], [None], ["x"], [1], ("x", None), {}, {"x": 1}, {"x"}, range(2), object(), object, ValueError("returned")),
    *(
        RunStatus.FAILED,
        WorkerStatus.STALLED,
        Lookalike.RUNNING,
        EntityKind.RUN,
        datetime(2026, 1, 1),
        NOW,
        run_of,
        process_of,
        failure_of,
    ),
]
"""What an attribute may have become."""
HOLDERS: dict[type[Any], tuple[str, str]] = {
    StudyEntity: ("Study", "studies { nodes { %s } }"),
    RunEntity: ("Run", "runs { nodes { %s } }"),
    LogicalWorkerEntity: ("LogicalWorker", "logicalWorkers { nodes { %s } }"),
    PhysicalWorkerEntity: ("PhysicalWorker", "physicalWorkers { nodes { %s } }"),
    Page: ("RunConnection", "runs { %s }"),
    MerlinDatabase: ("Database", "database { %s }"),
}
"""Classes whose attributes are fields: of which type, and where they are found."""


def attributes(class_: type[Any]) -> dict[str, str]:
    """By name, the field that each is, with all that is plain of what it leads to."""
    found = {}
    for name, field in OBJECTS[HOLDERS[class_][0]].fields.items():
        if name in ASYNCHRONOUS:
            continue
        attribute = accessor_of(name, field)
        if isinstance(attribute, Attribute):
            leads_to = get_named_type(field.type)
            inner = " ".join(plain_fields(leads_to)) if isinstance(leads_to, GraphQLObjectType) else ""
            found[attribute.name] = f"{name} {{ __typename {inner} }}" if inner else name
    return found


def plain_fields(type_: GraphQLObjectType) -> Iterator[str]:
    for name, field in type_.fields.items():
        if is_leaf_type(get_named_type(field.type)) and not field.args:
            yield name


OBJECTS: dict[str, Any] = SCHEMA._schema.type_map
PLACES = [(class_, name, field) for class_ in HOLDERS for name, field in attributes(class_).items()]

_FAULTY = [(class_, name) for class_, name, _ in PLACES if not (issubclass(class_, DatabaseEntity) and name == "id")]
"""By its id an entity is known to pieces: that two have the same is no fault of an attribute."""


@contextmanager
def fault(random: Random, text: str) -> Iterator[str]:
    """Some of the entities, or all, have something strange in an attribute, mostly in one that a document names."""
    named = [place for place in _FAULTY if graphql_name(place[1]) in text]
    class_, name = random.choice(named or _FAULTY)
    value, share = random.choice(STRANGE), random.choice([1, 2, 3])
    with replaced(class_, name, value, share):
        yield f"{class_.__name__}.{name}: {value!r} in one of {share}"


@contextmanager
def replaced(class_: type[Any], name: str, value: Any, share: int = 1) -> Iterator[None]:
    before = class_.__dict__.get(name)
    original: Any = getattr(class_, name, None)

    def read(entity: Any) -> Any:
        if share > 1 and isinstance(entity, DatabaseEntity) and hash(entity.record.id) % share:
            return original.__get__(entity, class_)
        return value(entity) if inspect.isfunction(value) else value

    def write(entity: Any, stored: Any) -> None:
        if hasattr(original, "__set__"):
            original.__set__(entity, stored)

    setattr(class_, name, property(read, write))
    try:
        yield
    finally:
        if before is None:  # of one above it, or set for each object
            delattr(class_, name)
        else:
            setattr(class_, name, before)


WORDS = Words(
    ids=[*IDS, task_id(uid(11), "sim/0"), task_id(uid(11), "nothing"), task_id(uid(12), "sim/0")],
    names=["a", "sim", "q", "\ud800", "/r_20260101-000000", "[merlin]_a"],
    cursors=[
        write_cursor("NAME", ("", uid(1))),
        write_cursor("NAME", ("a", uid(1))),
        write_cursor("LAUNCHED_AT", (-63903081600, uid(11))),
        write_cursor("LAUNCHED_AT", (-(2**60), uid(11))),
        write_cursor("ID:ASC", (uid(12), uid(12))),
        write_cursor("RESTART_COUNT:DESC", (3, uid(24))),
        write_cursor("PATH", (2**32 + 1, "")),
        write_cursor("STATUS:ASC", (1, "2")),
        write_cursor("SEVERITY:DESC", (7, "0")),
        write_cursor("RUN_TIME:DESC", (None, "100000000")),
    ],
)


class Untouched:
    """An allowance that is the same at all times."""

    limit = remaining = 1_000
    per_second = 10.0
    reset_at = datetime(2026, 1, 1, tzinfo=UTC)

    def take(self, _points: int) -> float:
        return 0.0

    def give_back(self, points: int) -> None:
        pass


class World:
    """A database that is open, with two servers of it: one that compiles, and one that does not."""

    def __init__(self, runner: asyncio.Runner, database: MerlinDatabase) -> None:
        self.runner = runner
        self.context = Context(database, "1", Role.ADMIN, allowance=Untouched())
        self.plain = Engine(SCHEMA, UNLIMITED, compiled=False)
        self.compiled = Engine(SCHEMA, UNLIMITED)

    def compare(self, asked: Asked, random: Random) -> None:
        try:
            operation = self.plain.parse(asked.text, asked.name)
        except OperationError:
            return  # a few are not valid
        for values in asked.variables:
            event = self._event(operation, random)
            self._compare(operation, values, event, asked, times=3)
            if random.random() < 0.5:
                with fault(random, asked.text) as told:
                    self._compare(operation, values, event, (asked, told), times=3)

    def _compare(
        self, operation: Operation, values: dict[str, Any], event: Any, told: object, *, times: int = 1
    ) -> None:
        """`times`: with several, the later answers are made of pieces of the earlier ones."""
        self.context.database.entity_context.pieces.clear()  # an attribute may have another value now
        expected = self.runner.run(answer(self.plain, operation, values, self.context, event))
        for _ in range(times):
            given = self.runner.run(answer(self.compiled, operation, values, self.context, event))
            assert given == expected, (told, values)

    def _event(self, operation: Operation, random: Random, revisions: Sequence[int] = (1, 2**31)) -> Any:
        if operation.type is OperationType.QUERY:
            return None
        database = self.context.database
        (field,) = operation.definition.selection_set.selections
        name = field.name.value  # type: ignore[attr-defined]
        if name == "live":
            return LiveTick(random.random())
        id_ = random.choice(IDS)
        kind, told = random.choice(list(ChangeKind)), strawberry.ID(id_)
        if name == "changes":
            node = database.by_id(id_)
            return Change(
                kind=kind, entity_kind=EntityKind.RUN, entity_id=told, node=node, revision=random.choice(revisions)
            )
        if name == "taskChanges":
            task = random.choice([None, *FAULTY_TASKS])
            return TaskChange(kind=kind, task_id=told, task=task, revision=database.revision)
        if name == "log":
            start, end = random.choice([0, 7]), random.choice([7, 2**40])
            return LogChange(LogTail("\ud800 end", 2**40, start, end, is_whole=start == 0, modified_at=None))
        return RunChange(kind=kind, run_id=told, run=database.runs.by_id(id_), revision=database.revision)


async def answer(
    server: Engine, operation: Operation, values: dict[str, Any], context: Context, event: Any = None
) -> object:
    """What a client is told: the bytes, or why there are none."""
    try:
        if operation.type is OperationType.SUBSCRIPTION:
            result = await settled(
                server._result(operation, server._documents.variables(operation, values), context, event)
            )
            return GraphQLResponse(result, operation.deprecations).encoded
        async with aclosing(server.execute(operation, values, context)) as answers:
            return (await anext(answers)).encoded
    except OperationError as error:
        return error.errors
    except (TypeError, ValueError, RecursionError) as error:  # what is no JSON can't be told
        return type(error)


async def settled(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


def asked(server: Engine, world: World, text: str, times: int = 1, **values: Any) -> list[object]:
    operation = server.parse(text)
    return [world.runner.run(answer(server, operation, values, world.context)) for _ in range(times)]
