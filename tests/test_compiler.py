"""The compiler of operations, against graphql-core: the same bytes, whatever is asked of whatever data."""

from __future__ import annotations

import asyncio
import inspect
import json
import linecache
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, tzinfo
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, NewType

import pytest
import strawberry
from graphql import (
    GraphQLObjectType,
    OperationDefinitionNode,
    OperationType,
    Undefined,
    get_named_type,
    is_leaf_type,
    parse,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strawberry.schema.config import StrawberryConfig

from schema import errors
from schema.build import make_schema
from schema.changes import Change, LiveTick, RunChange
from schema.compiler.accessors import Attribute, accessor_of
from schema.compiler.compiler import KEPT, Compiled, compile_operation
from schema.compiler.errors import NotCompilableError
from schema.connections import Page
from schema.context import Context
from schema.cursors import write_cursor
from schema.effects import graphql_name
from schema.engine import Engine
from schema.limits import Limits
from schema.operation import GraphQLResponse, Operation, OperationError
from schema.roles import Role
from server.database import entities
from server.database.change_log import ChangeKind
from server.database.demo_data import demo_records
from server.database.entities import (
    DatabaseEntity,
    LogicalWorkerEntity,
    PhysicalWorkerEntity,
    RunEntity,
    StudyEntity,
)
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    LogicalWorkerModel,
    Model,
    RunStatus,
    WorkerStatus,
)
from tests.documents import Asked, DocumentMaker, Words
from tests.records import logical_worker, memory_of, physical_worker, run, study, uid
from tests.test_queries import QUERIES, variables

SCHEMA = make_schema()
UNLIMITED = Limits(cost=10**12, depth=10**3, tokens=10**6, characters=10**6, aliases=10**6, directives=10**6)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))

# --- what is asked of ----------------------------------------------------------------------------------------------

WORKERS = [
    logical_worker("sim", ("[merlin]_a",)),
    logical_worker("", ("[merlin]_b", "q")),
    logical_worker("\ud800", ()),
]
GONE = LogicalWorkerModel.generate_id("gone", ())
NAN = '{"x": NaN, "y": [Infinity, 123456789012345678901234567890], "z": "\\ud800"}'


def faulty_records() -> list[Model]:
    """As small as can be with everything that may be wrong with stored data."""
    far = datetime(9999, 12, 31, 23, 59, 59)
    return [
        study(1, "a", runs=(uid(11), uid(12), uid(99))),
        study(2, "", additional_data=NAN),
        study(3, "a"),
        run(11, "/r_20260101-000000", study_id=uid(1), workers=(WORKERS[0].id, GONE), run_status=RunStatus.RUNNING),
        run(12, "", study_id=uid(98), workers=(WORKERS[1].id, WORKERS[1].id), parameters=NAN),
        run(13, "/\ud800_99991231-235959", study_id=uid(2), parent=uid(11), child=uid(99), queues=("q", "\ud800", "")),
        run(14, "/x_20261399-000000", parent=uid(14), run_status=RunStatus.UNKNOWN, samples='[1, "two", null, {}]'),
        *WORKERS,
        physical_worker(21, logical_worker_id=WORKERS[0].id, restart_count=2**31, heartbeat_timestamp=far),
        physical_worker(22, "", logical_worker_id=uid(97), restart_count=-(2**40), worker_status=WorkerStatus.UNKNOWN),
        physical_worker(23, host="h", pid="1", args="--bare text", heartbeat_timestamp=datetime(2026, 1, 1, 12)),
        physical_worker(24, logical_worker_id=WORKERS[1].id, restart_count=3, latest_start_time=datetime(1, 1, 1)),
    ]


IDS = [uid(number) for number in (1, 2, 3, 11, 12, 13, 14, 21, 22, 23, 24, 99)] + [WORKERS[0].id, GONE]
WORDS = Words(
    ids=IDS,
    names=["a", "sim", "q", "\ud800", "/r_20260101-000000", "[merlin]_a"],
    cursors=[
        write_cursor("NAME", ("", uid(1))),
        write_cursor("NAME", ("a", uid(1))),
        write_cursor("LAUNCHED_AT", (-63903081600, uid(11))),
        write_cursor("LAUNCHED_AT", (-(2**60), uid(11))),
        write_cursor("ID:ASC", (uid(12), uid(12))),
        write_cursor("RESTART_COUNT:DESC", (3, uid(24))),
    ],
)


class Text(str):
    """Not plainly a text."""

    __slots__ = ()


class Lookalike(Enum):
    """No status, for all its names."""

    RUNNING = "running"
    FAILED = "failed"


def _run(entity: Any) -> RunEntity:
    return RunEntity(run(11), entity._around)


def _process(entity: Any) -> PhysicalWorkerEntity:
    return PhysicalWorkerEntity(physical_worker(23), entity._around)


def _failure(entity: Any) -> Any:
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
        _run,
        _process,
        _failure,
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


@contextmanager
def fault(random: Random, text: str) -> Iterator[str]:
    """Some of the entities, or all, have something strange in an attribute, mostly in one that a document names."""
    named = [(class_, name) for class_, name, _ in PLACES if graphql_name(name) in text]
    class_, name = random.choice(named or [(class_, name) for class_, name, _ in PLACES])
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


class FrozenTime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return NOW.astimezone(tz)


class World:
    """A database that is open, with two servers of it: one that compiles, and one that does not."""

    def __init__(self, runner: asyncio.Runner, database: MerlinDatabase) -> None:
        self.runner = runner
        self.context = Context(database, "1", Role.ADMIN)
        self.plain = Engine(SCHEMA, UNLIMITED, compiled=False)
        self.compiled = Engine(SCHEMA, UNLIMITED)

    def compare(self, asked: Asked, random: Random) -> None:
        try:
            operation = self.plain.parse(asked.text, asked.name)
        except OperationError:
            return  # a few are not valid
        for values in asked.variables:
            event = self._event(operation, random)
            self._compare(operation, values, event, asked)
            if random.random() < 0.5:
                with fault(random, asked.text) as told:
                    self._compare(operation, values, event, (asked, told))

    def _compare(self, operation: Operation, values: dict[str, Any], event: Any, told: object) -> None:
        expected = self.runner.run(answer(self.plain, operation, values, self.context, event))
        assert self.runner.run(answer(self.compiled, operation, values, self.context, event)) == expected, (
            told,
            values,
        )

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
            return Change(kind=kind, entity_kind=EntityKind.RUN, id=told, node=node, revision=random.choice(revisions))
        return RunChange(kind=kind, id=told, run=database.runs.by_id(id_), revision=database.revision)


async def answer(
    server: Engine, operation: Operation, values: dict[str, Any], context: Context, event: Any = None
) -> object:
    """What a client is told: the bytes, or why there are none."""
    try:
        if operation.type is OperationType.SUBSCRIPTION:
            result = await settled(server._result(operation, values, context, event))
            return GraphQLResponse(result, operation.deprecations).encoded
        async with aclosing(server.execute(operation, values, context)) as answers:
            return (await anext(answers)).encoded
    except OperationError as error:
        return error.errors
    except (TypeError, ValueError, RecursionError) as error:  # what is no JSON can't be told
        return type(error)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(entities, "datetime", FrozenTime)
        patch.setattr(secrets, "token_hex", lambda _: "an id")
        patch.setattr(errors.LOG, "disabled", True)
        patch.setattr(logging.getLogger("asyncio"), "disabled", True)
        opening = _opening()
        database = runner.run(_next(opening))
        yield World(runner, database)
        runner.run(opening.aclose())


async def _next(opening: AsyncGenerator[MerlinDatabase]) -> MerlinDatabase:
    return await anext(opening)


async def _opening() -> AsyncGenerator[MerlinDatabase]:
    async with opened(await memory_of(*faulty_records()), time_zone=UTC) as database:
        yield database


def ask_anything(world: World, random: Random, documents: int) -> None:
    for _ in range(documents):
        kind = "query" if random.random() < 0.85 else "subscription"
        world.compare(DocumentMaker(SCHEMA._schema, WORDS, random).asked(kind, times=3), random)


RANDOM = st.randoms(use_true_random=True, note_method_calls=False)
"""Seeded by hypothesis; what it finds is told as a document, so it need not be made smaller."""


@settings(SLOW, max_examples=120)
@given(RANDOM)
def test_the_answer_is_graphql_cores_to_the_byte(world: World, random: Random) -> None:
    """Any document with any variables, of faulty data and of attributes that misbehave, is answered alike."""
    ask_anything(world, random, 5)


@pytest.mark.soak
@settings(SLOW, max_examples=3_000)
@given(RANDOM)
def test_every_one_of_many_answers_is_graphql_cores(world: World, random: Random) -> None:
    """As above, for longer: some 60,000 cases."""
    ask_anything(world, random, 5)


def test_what_is_compared_is_compiled(world: World) -> None:
    """Of generated operations most are answered by their functions, and some bail out."""
    world.compiled = Engine(SCHEMA, UNLIMITED)
    ask_anything(world, Random(1), 60)
    tally = world.compiled.execution_counts
    assert tally.compiled > tally.fallbacks > 0


@pytest.mark.parametrize(("class_", "name", "field"), PLACES, ids=lambda it: getattr(it, "__name__", None))
def test_whatever_an_attribute_has_become(world: World, class_: type[Any], name: str, field: str) -> None:
    """Each attribute that is a field, with each strange value, is answered as graphql-core answers it."""
    operation = world.plain.parse(f"{{ {HOLDERS[class_][1] % field} }}")
    bare = world.plain.parse(f"{{ {HOLDERS[class_][1] % re.sub('{.*}', '{ __typename }', field)} }}")
    before = world.compiled.execution_counts.compiled
    world._compare(operation, {}, None, "as it is")
    assert world.compiled.execution_counts.compiled == before + 1
    for value in STRANGE:
        with replaced(class_, name, value):
            world._compare(operation, {}, None, value)
            world._compare(bare, {}, None, value)


@pytest.mark.parametrize(
    "path", [path for path in QUERIES if "mutation" not in path.read_text()], ids=lambda it: it.stem
)
def test_a_saved_operation_is_compiled(world: World, path: Path) -> None:
    """But for the one that looks for problems, which reads from the database itself; the bytes are the same."""
    server, text = Engine(SCHEMA, UNLIMITED), path.read_text()
    operation = server.parse(text)
    declared = {node.variable.name.value for node in operation.definition.variable_definitions or ()}
    known = {name: value for name, value in variables(list(demo_records(NOW))).items() if name in declared}
    values = {**known, **({"workspace": "/r_20260101-000000"} if "workspace" in known else {})}
    event = world._event(operation, Random(1), revisions=[1])
    expected = world.runner.run(answer(world.plain, operation, values, world.context, event))
    assert world.runner.run(answer(server, operation, values, world.context, event)) == expected
    integrity = path.stem == "FindProblems"
    assert (server.execution_counts.compiled, server.execution_counts.not_compilable) == (
        (0, 1) if integrity else (1, 0)
    )


# --- what is left to graphql-core ----------------------------------------------------------------------------------


def compiled(text: str, schema: strawberry.Schema = SCHEMA) -> Compiled:
    document = parse(text)
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return compile_operation(schema, document, operation)


@strawberry.type
class Odd:
    name: str = "odd"

    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, Odd)


@strawberry.type
class Other:
    name: str = "other"


class Guard(strawberry.BasePermission):
    message = "No."

    def has_permission(self, *_: Any, **__: Any) -> bool:
        return True


class Extension(strawberry.extensions.FieldExtension):
    def resolve(self, next_: Callable[..., Any], source: Any, info: Any, **given: Any) -> Any:
        return next_(source, info, **given)


def _one() -> int:
    return 1


async def _asynchronous() -> int:
    return 1


def _nothing(_value: object) -> None:
    return None


Nothing = NewType("Nothing", object)


@strawberry.input
class Picky:
    number: int

    def __post_init__(self) -> None:
        raise ValueError(f"not {self.number}")


def _pick(of: Picky) -> int:
    return of.number


@strawberry.type
class OddQuery:
    picked: int | None = strawberry.field(resolver=_pick)
    nothing: Nothing | None = None
    something: Nothing | None = strawberry.field(default=1)
    plain: int = 1
    slow: int = strawberry.field(resolver=_asynchronous)

    guarded: int = strawberry.field(resolver=_one, permission_classes=[Guard])
    extended: int = strawberry.field(resolver=_one, extensions=[Extension()])

    @strawberry.field
    def either(self) -> Odd | Other:
        return Odd()

    @strawberry.field
    @staticmethod
    def path(info: strawberry.Info) -> str:
        return info.field_name

    @strawberry.field
    def method(self, count: int = 2) -> list[Odd]:
        return [Odd() for _ in range(count)]


SCALARS: dict[object, Any] = {Nothing: strawberry.scalar(name="Nothing", serialize=_nothing)}
ODD = strawberry.Schema(query=OddQuery, config=StrawberryConfig(scalar_map=SCALARS))


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        (SCHEMA, "{ integrity { totalCount } }", "Query.integrity is no plain synchronous function."),
        (SCHEMA, "{ __schema { types { name } } }", "__schema is not compiled."),
        (SCHEMA, '{ __type(name: "Run") { name } }', "__type is not compiled."),
        (SCHEMA, "mutation { collectGarbage(input: {}) { deletedIds } }", "Mutations are not compiled."),
        (SCHEMA, "query ($x: Boolean) { __typename @skip(if: $x) }", "Argument 'if'"),
        (ODD, "{ slow }", "OddQuery.slow is no plain synchronous function."),
        (ODD, "{ guarded }", "OddQuery.guarded has extensions or permissions."),
        (ODD, "{ extended }", "OddQuery.extended has extensions or permissions."),
        (ODD, "{ either { __typename } }", "OddOther is a union."),
        (ODD, "{ picked(of: {number: 1}) }", "not 1"),
    ],
)
def test_what_is_unknown_is_not_compiled(schema: strawberry.Schema, text: str, reason: str) -> None:
    """What is not plain and synchronous is told by name."""
    with pytest.raises(NotCompilableError, match=f"^{reason.replace('(', '[(]')}"):
        compiled(text, schema)


def test_a_short_document_makes_no_endless_function() -> None:
    """Fragments that spread each other twice would be a million fields: they are left to graphql-core."""
    bomb = "fragment F0 on Run { id }"
    for number in range(1, 20):
        inner = f"a: parent {{ ...F{number - 1} }} b: parent {{ ...F{number - 1} }}"
        bomb += f" fragment F{number} on Run {{ {inner} }}"
    with pytest.raises(NotCompilableError, match="more than 2000 fields"):
        compiled(f'{{ run(id: "x") {{ ...F19 }} }} {bomb}')


def test_lists_in_lists_in_lists_are_left_to_graphql_core() -> None:
    """Python nests no more than twenty loops."""
    text = "id"
    for _ in range(21):
        text = f"runs {{ nodes {{ workers {{ {text} }} }} }}"
    with pytest.raises(NotCompilableError, match="nested too deeply"):
        compiled(f'{{ study(id: "x") {{ {text} }} }}')


async def settled(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


def asked(server: Engine, world: World, text: str, times: int = 1, **values: Any) -> list[object]:
    operation = server.parse(text)
    return [world.runner.run(answer(server, operation, values, world.context)) for _ in range(times)]


def test_an_operation_has_a_function_for_each_value_that_steers(world: World) -> None:
    """Of what @skip and @include go by, and of nothing else; each is made once."""
    server, made = Engine(SCHEMA), len(kept_lines())
    text = "query ($x: Boolean!, $n: Int) { runs(first: $n) { totalCount nodes @skip(if: $x) { id } } }"
    for values in ({"x": True}, {"x": False}, {"x": False, "n": 1}, {"x": True, "n": 2}):
        assert asked(server, world, text, 3, **values) == asked(world.plain, world, text, 3, **values)
    assert server.execution_counts.compiled == 12
    assert len(kept_lines()) == made + 2


def kept_lines() -> list[str]:
    """The functions whose lines are known to tracebacks."""
    return [file for file in linecache.cache if file.startswith("<operation")]


def test_what_falls_back_is_counted(world: World) -> None:
    """With its reason: it could not be compiled, or its function met what it did not expect."""
    server = Engine(SCHEMA, UNLIMITED)
    asked(server, world, "{ runs(first: 0) { totalCount } }", 2)
    asked(server, world, "{ integrity { totalCount } runs { totalCount } }", 3)
    asked(server, world, "{ runs { totalCount } }", 4)
    tally = server.execution_counts
    assert (tally.compiled, tally.bailed_out, tally.not_compilable, tally.fallbacks) == (4, 2, 3, 5)


def test_nothing_is_compiled_where_it_is_not_wanted(world: World) -> None:
    """The flag leaves everything to graphql-core."""
    server = Engine(SCHEMA, compiled=False)
    assert asked(server, world, "{ runs { totalCount } }", 3) == [b'{"data":{"runs":{"totalCount":4}}}'] * 3
    assert server.execution_counts.compiled == 0


def test_a_resolver_that_asks_for_more_than_the_context_is_left_to_graphql_core(world: World) -> None:
    """A method is compiled: it gets its object, and the defaults of its arguments."""
    server = Engine(ODD)
    assert asked(server, world, "{ path }", 3) == [b'{"data":{"path":"path"}}'] * 3
    assert (server.execution_counts.compiled, server.execution_counts.bailed_out) == (0, 3)
    assert (
        asked(server, world, "{ method { name } }", 3) == [b'{"data":{"method":[{"name":"odd"},{"name":"odd"}]}}'] * 3
    )
    assert server.execution_counts.compiled == 3


def test_a_scalar_that_has_no_answer_is_left_to_graphql_core(world: World) -> None:
    """It is an error, where null itself is none."""
    server, plain = Engine(ODD), Engine(ODD, compiled=False)
    root = OddQuery()
    for text, compiled in (("{ nothing }", 2), ("{ something }", 0)):
        before = server.execution_counts.compiled
        operation = server.parse(text)
        told = [world.runner.run(settled(server._result(operation, None, world.context, root))) for _ in range(2)]
        expected = world.runner.run(settled(plain._result(operation, None, world.context, root)))
        assert [one.formatted for one in told] == [expected.formatted] * 2
        assert server.execution_counts.compiled - before == compiled


@pytest.mark.parametrize("given", [{}, {"v": None}, {"v": uid(11)}, {"v": 2}])
@pytest.mark.parametrize(
    "text",
    [
        'query ($v: ID = "x") { node(id: $v) { id } }',
        "query ($v: ID) { run(id: $v) { id } }",
        "query ($v: ID!) { nodes(ids: [$v]) { id } }",
        "query ($v: ID) { runs(filter: {id: {eq: $v}}) { totalCount } }",
        "query ($v: String = null) { study(name: $v) { id } }",
        "query ($v: Int = 1) { runs(first: $v) { nodes { id } } }",
        "query ($v: Int) { runs(first: $v, last: $v) { nodes { id } } }",
    ],
)
def test_a_variable_is_given_on_as_graphql_core_gives_it(world: World, text: str, given: dict[str, Any]) -> None:
    """Left out, null, of the right or of a wrong type; with and without a default."""
    server = Engine(SCHEMA)
    operation = server.parse(text)
    for _ in range(2):
        told = world.runner.run(answer(server, operation, given, world.context))
        assert told == world.runner.run(answer(world.plain, operation, given, world.context))


@pytest.mark.parametrize("given", [{}, {"v": None}, {"v": True}])
def test_an_event_has_the_arguments_of_its_field(world: World, given: dict[str, Any]) -> None:
    """graphql-core reads them anew for each event: where they are wrong there is no answer."""
    operation = world.plain.parse("subscription ($v: Boolean = true) { runChanges(snapshot: $v) { kind } }")
    event = RunChange(kind=ChangeKind.DELETED, id=strawberry.ID("x"), run=None, revision=1)
    world._compare(operation, given, event, given)


def test_the_operations_of_a_document_are_told_apart(world: World) -> None:
    """By their names."""
    server, text = Engine(SCHEMA), "query A { a: __typename } query B { b: __typename }"
    for _ in range(2):
        for name, expected in (("A", b'{"data":{"a":"Query"}}'), ("B", b'{"data":{"b":"Query"}}')):
            operation = server.parse(text, name)
            assert world.runner.run(answer(server, operation, {}, world.context)) == expected
    assert server.execution_counts.compiled == 4


def test_functions_are_kept_within_bounds(world: World) -> None:
    """The oldest are forgotten, with the lines that tracebacks would show of them."""
    server, before = Engine(SCHEMA, UNLIMITED), len(kept_lines())
    for number in range(KEPT + 20):
        asked(server, world, f"{{ a{number}: __typename }}")
    assert server.execution_counts.compiled == KEPT + 20
    assert len(kept_lines()) <= before + KEPT


def test_an_event_is_told_by_its_function(world: World) -> None:
    """Each of them, and they say what graphql-core would say."""
    text = "subscription { changes(snapshot: true) { kind node { __typename id ... on Run { workspace } } } }"

    async def first(server: Engine, count: int) -> list[bytes]:
        answers = server.execute(server.parse(text), None, world.context)
        async with aclosing(answers):
            return [(await anext(answers)).encoded for _ in range(count)]

    server = Engine(SCHEMA)
    assert world.runner.run(first(server, 6)) == world.runner.run(first(world.plain, 6))
    assert server.execution_counts.compiled == 6


# --- hostile text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["class", "def", "None", "__import__", "__builtins__", "raise", "root", "answer", "_1"]
)
def test_no_name_of_a_client_means_anything_in_the_source(world: World, name: str) -> None:
    """Operations, fragments, variables and keys may be called whatever GraphQL allows."""
    text = f"""query {name}(${name}: Int = 1) {{
        {name}: runs(first: ${name}) {{ {name}: nodes {{ ...F{name} {name}: id }} }}
    }} fragment F{name} on Run {{ _{name}: __typename }}"""
    server = Engine(SCHEMA, UNLIMITED)
    assert asked(server, world, text) == asked(world.plain, world, text)
    assert server.execution_counts.compiled == 1


@pytest.mark.parametrize(
    "text",
    [
        '"""\n    import os\n"""',
        "')]; raise SystemExit; #",
        "\\",
        "\\N{BULLET}",
        "{0}",
        "%s",
        "\u2028\u2029\x85",
        "\n    raise SystemExit\n",
    ],
)
def test_no_text_of_a_client_gets_into_the_source(world: World, text: str) -> None:
    """Neither as a literal nor within one."""
    literal = json.dumps(text)
    query = (
        f'{{ study(name: {literal}) {{ id }} runs(filter: {{workspace: {{in: [{literal}, "a"]}}}}) {{ totalCount }} }}'
    )
    assert text not in compiled(query).source
    assert "workspace" not in compiled(query).source
    server = Engine(SCHEMA, UNLIMITED)
    assert asked(server, world, query, 2) == asked(world.plain, world, query, 2)
    assert server.execution_counts.compiled == 2


def test_the_source_can_be_read() -> None:
    """It is the same each time, and says what it does with the names of the schema."""
    query = "query Names { runs(first: 2) { nodes { id status study { name } } } }"
    assert compiled(query).source == compiled(query).source == SOURCE


SOURCE = """\
def answer(root, info, variables):
    runs_2 = Query_runs(info=info, **fixed_runs_1_)
    if runs_2.__class__ not in RunConnection_classes and not RunConnection_classes.admits(runs_2):
        raise Unexpected
    nodes_3 = runs_2.nodes
    if nodes_3.__class__ not in lists:
        raise Unexpected
    nodes_4 = []
    for run_5 in nodes_3:
        if run_5.__class__ not in Run_classes and not Run_classes.admits(run_5):
            raise Unexpected
        id_6 = run_5.id
        if id_6.__class__ is not str:
            raise Unexpected
        status_7 = run_5.status
        if status_7.__class__ is not RunStatus:
            raise Unexpected
        study_8 = run_5.study
        study_9 = None
        if study_8 is not None:
            if study_8.__class__ not in Study_classes and not Study_classes.admits(study_8):
                raise Unexpected
            name_10 = study_8.name
            if name_10.__class__ is not str:
                raise Unexpected
            study_9 = {'name': name_10}
        nodes_4.append({'id': id_6, 'status': names_of_RunStatus[status_7._name_], 'study': study_9})
    return {'runs': {'nodes': nodes_4}}
"""
