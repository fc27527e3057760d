"""What an operation costs: an upper bound of its work, close to it, whatever its variables look like."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from graphql import (
    ArgumentNode,
    ExecutionResult,
    FieldNode,
    IntValueNode,
    NameNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    parse,
    print_ast,
    visit,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema import documents
from schema.budget import UNMETERED, Budget
from schema.build import make_schema
from schema.context import Context
from schema.core import core_of
from schema.encoding import encode_json
from schema.engine import Engine
from schema.limits import DEFAULTS, STRICT, Limits
from schema.operation import Operation, OperationError
from schema.roles import Role
from server.database.demo_data import bulk_records
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import KINDS, EntityKind, Entry, Key, Model
from server.database.read_model import ReadModel
from server.database.sizes import Sizes, rounded, sizes_of
from tests.support.asking import execute
from tests.support.compiler import UNLIMITED, WORDS, World
from tests.support.documents import ASYNCHRONOUS, DocumentMaker
from tests.support.natural import natural_query
from tests.support.records import logical_worker, memory_of, run, study, uid
from tests.support.work import fields_of

pytestmark = pytest.mark.anyio

SCHEMA = make_schema()
CORE = core_of(SCHEMA)
ASKING = (Path(__file__).parents[2] / "docs/asking.md").read_text()
LARGE = Sizes(
    studies=500,
    runs=100_000,
    logical_workers=60,
    physical_workers=500,
    queues=120,
    runs_of_study=200,
    runs_of_worker=5_000,
    workers_of_run=3,
    instances_of_worker=10,
)
"""Of 100,000 runs as `bulk_records` makes them, with some room."""
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


def common_queries() -> dict[str, str]:
    """The questions of docs/asking.md, by name."""
    (block,) = [one for one in re.findall(r"```graphql\n(.*?)```", ASKING, re.DOTALL) if "query TheLatestRuns" in one]
    return {text.split()[1].partition("(")[0]: text for text in re.split(r"\n\n(?=query )", block.strip())}


VARIABLES: dict[str, dict[str, Any]] = {
    "RunsOfAStudyByStatus": {"study": "a"},
    "RunsOfAStudy": {"study": "a"},
    "RunsSince": {"since": "2026-01-01T00:00:00Z"},
    "RunsOfAQueue": {"queue": "q"},
    "RunsInAWorkspace": {"part": "13"},
    "OneRun": {"id": uid(1)},
    "SeveralRuns": {"ids": [uid(number) for number in range(50)]},
}


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    async with opened(await memory_of(*bulk_records(datetime(2026, 1, 1), 300))) as database:
        yield database


def context_of(database: MerlinDatabase) -> Context:
    return Context(database, "1", Role.ADMIN)


def cost_of(engine: Engine, text: str, variables: dict[str, Any] | None, sizes: Sizes) -> int:
    """Raises `OperationError`."""
    operation = engine.parse(text)
    coerced = engine._documents.variables(operation, variables).coerced
    assert coerced is not None
    return engine._documents.cost(operation, coerced.coerced, sizes)


def asked_of(world: World, random: Random) -> Iterator[tuple[Operation, dict[str, Any]]]:
    """A random query, several times with other variables; nothing if it is invalid, or asynchronous."""
    asked = DocumentMaker(CORE, WORDS, random).asked("query", times=3)
    if any(name in asked.text for name in ASYNCHRONOUS):
        return
    try:
        operation = world.compiled.parse(asked.text, asked.name)
    except OperationError:
        return
    yield from ((operation, values) for values in asked.variables)


# --- an upper bound


@settings(SLOW, max_examples=60)
@given(st.randoms(use_true_random=True, note_method_calls=False))
def test_no_response_has_more_fields_than_its_operation_costs(world: World, random: Random) -> None:
    """Whatever is asked of whatever data, with any variables."""
    for operation, values in asked_of(world, random):
        fields = fields_of(CORE, operation, values, world.context)
        if fields is not None:
            variables = world.compiled._documents.variables(operation, values)
            assert fields <= world.compiled._cost(operation, variables, world.context), (operation.text, values)


@settings(SLOW, max_examples=60)
@given(st.randoms(use_true_random=True, note_method_calls=False))
def test_both_ways_spend_the_same_and_no_more_than_the_cost(world: World, random: Random) -> None:
    """Compiled functions and graphql-core, with the same answer; what is searched once may be found twice."""
    for operation, values in asked_of(world, random):
        variables = world.compiled._documents.variables(operation, values)
        by_core, compiled = Budget(sys.maxsize), Budget(sys.maxsize)
        try:
            expected = world.plain._by_core(operation, variables, replace(world.context, budget=by_core))
        except OperationError:
            continue
        assert isinstance(expected, ExecutionResult)
        context = replace(world.context, budget=compiled)
        data = world.compiled._data(operation, variables, context)
        if data is None:
            continue
        assert encode_json(data) == encode_json(expected.data)
        assert compiled.fields == by_core.fields
        cost = world.compiled._cost(operation, variables, world.context)
        assert compiled.spent <= by_core.spent <= cost, (operation.text, values)


async def test_an_operation_ends_when_it_has_spent_what_it_may(database: MerlinDatabase) -> None:
    """Whichever way it is executed: the error names the list that most was spent on."""
    text = "{ database { runs } all: runs(first: 300) { nodes { id workers { name queues } } } }"
    for is_compiled in (True, False):
        engine = Engine(SCHEMA, replace(UNLIMITED, cost=1_000), compiled=is_compiled)
        operation = Engine(SCHEMA, UNLIMITED).parse(text)
        variables = engine._documents.variables(operation, None)
        with pytest.raises(OperationError) as refused:
            await engine._executed(operation, variables, context_of(database), UNMETERED + 1)
        (error,) = refused.value.errors
        assert error["extensions"]["code"] == refused.value.code == "LIMIT_EXCEEDED"
        assert (error["extensions"]["limit"], error["extensions"]["maximum"]) == ("cost", 1_000)
        assert 1_000 < error["extensions"]["value"] < 2_000
        assert error["extensions"]["field"].startswith("all.nodes")


async def test_so_does_one_that_had_to_wait(database: MerlinDatabase) -> None:
    """What comes after the wait is counted, too, and refused in the same words."""
    for run_ in [*database.runs.all()]:
        key = Key(EntityKind.RUN, run_.id)
        database.read_model.apply([Entry(key, replace(run_.record, parent="gone"))])
    engine = Engine(SCHEMA, replace(UNLIMITED, cost=300))
    operation = engine.parse("{ integrity { problems { kind severity message } } }")
    variables = engine._documents.variables(operation, None)
    with pytest.raises(OperationError) as refused:
        await engine._executed(operation, variables, context_of(database), UNMETERED + 1)
    (error,) = refused.value.errors
    assert error["extensions"]["code"] == refused.value.code == "LIMIT_EXCEEDED"
    assert (error["extensions"]["limit"], error["extensions"]["field"]) == ("cost", "integrity.problems")


async def test_a_long_answer_belongs_to_one_revision(database: MerlinDatabase) -> None:
    """Others are answered in the middle of it, and what changes meanwhile is seen after it."""
    engine, context = Engine(SCHEMA, UNLIMITED), context_of(database)
    page = "runs(first: 300) { nodes { id workers { runs(first: 300) { nodes { workspace } } } } }"
    operation = engine.parse(f"{{ before: database {{ revision }} {page} after: database {{ revision }} }}")
    asking = asyncio.ensure_future(engine.query(operation, None, context))
    revisions = []
    while not asking.done():
        await asyncio.sleep(0)
        revisions.append(database.revision)
        (run_,) = list(database.runs.all())[:1]
        changed = replace(run_.record, workspace=f"/{len(revisions)}")
        await database.read_model.long_reads.ended()
        database.read_model.apply([Entry(Key(EntityKind.RUN, run_.id), changed)])
    answer = (await asking).data
    assert answer is not None
    assert answer["before"] == answer["after"]
    assert len(revisions) < 10
    assert answer["before"]["revision"] in revisions


async def test_the_cost_is_close_to_the_work(database: MerlinDatabase) -> None:
    """Of 19 in 20 queries as people write them, it is at most three times the number of fields."""
    random, engine, context = Random(1), Engine(SCHEMA, UNLIMITED), context_of(database)
    ids = {
        "run": [entity.id for entity in database.runs.all()],
        "study": [entity.id for entity in database.studies.all()],
    }
    ratios = []
    for _ in range(120):
        text = natural_query(CORE, ids, random)
        operation = engine.parse(text)
        fields = fields_of(CORE, operation, None, context)
        assert fields is not None, text
        cost = engine._cost(operation, engine._documents.variables(operation, None), context)
        assert fields <= cost, text
        ratios.append((cost / fields, text))
    ratios.sort()
    print([round(ratios[int(len(ratios) * share)][0], 2) for share in (0.5, 0.9, 0.95, 0.99)])
    assert ratios[int(len(ratios) * 0.95)][0] <= 3, ratios[int(len(ratios) * 0.95)]


@settings(SLOW)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.lists(st.integers(1, 4), max_size=3)), max_size=30))
def test_sizes_bound_every_entity(writes: list[tuple[int, int, list[int]]]) -> None:
    """However runs came, went, and changed their study and their workers."""
    model = ReadModel()
    crew = [logical_worker(f"w{number}") for number in range(4)]
    parents: list[Model] = [*(study(number) for number in range(1, 4)), *crew]
    model.apply(entry(record) for record in parents)
    for number, of, workers in writes:
        key = Key(EntityKind.RUN, uid(100 + number))
        record = run(100 + number, study_id=uid(of), workers=tuple(crew[worker - 1].id for worker in workers))
        model.apply([Entry(key, record if of else None)])
        sizes = sizes_of(model).rounded
        assert sizes.runs >= len(model.runs)
        for parent in model.studies:
            assert sizes.runs_of_study >= len(model.study_runs.members_of(parent.id))
        for worker in model.logical_workers:
            assert sizes.runs_of_worker >= len(model.worker_runs.members_of(worker.id))
        for one in model.runs:
            assert sizes.workers_of_run >= len(model.worker_runs.owners_of(one.id))


def entry(record: Model) -> Entry:
    return Entry(Key(KINDS[type(record)], record.id), record)


def test_rounding_makes_a_size_no_smaller_and_little_larger() -> None:
    """So what was measured holds until the database has grown by an eighth."""
    for size in [*range(5_000), 10**6, 10**9 + 1]:
        assert size <= rounded(size) <= size * 9 / 8


# --- variables


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("query ($n: Int) { runs(first: $n) { nodes { id } } }", [{"n": 100}, {"n": 100.0}]),
        ("query ($n: Int = 100) { runs(first: $n) { nodes { id } } }", [{}, {"n": 100}]),
        ('query ($i: [ID!]! = ["a", "b"]) { nodes(ids: $i) { id } }', [{}, {"i": ["a", "b"]}]),
        ('query ($i: [ID!]! = "a") { nodes(ids: $i) { id } }', [{}, {"i": "a"}, {"i": ["a"]}]),
        (
            "query ($f: RunFilter = {or: {isFinished: true}}) { runs(filter: $f) { totalCount } }",
            [{}, {"f": {"or": {"isFinished": True}}}, {"f": {"or": [{"isFinished": True}]}}],
        ),
        ("query ($s: Boolean! = true) { runs @skip(if: $s) { totalCount } __typename }", [{}, {"s": True}]),
        ("query ($o: RunOrder) { runs(orderBy: $o) { totalCount } }", [{}, {"o": None}]),
    ],
)
def test_variables_that_execute_alike_cost_alike(text: str, forms: list[dict[str, Any]]) -> None:
    """A whole number with a point, one value for a list, a default: they are measured as they are executed."""
    engine = Engine(SCHEMA, UNLIMITED)
    assert len({cost_of(engine, text, form, LARGE) for form in forms}) == 1


def test_a_variable_costs_what_its_value_costs_in_the_document() -> None:
    """Conditions too."""
    engine = Engine(SCHEMA, UNLIMITED)
    values: list[tuple[str, Any]] = [
        ("{status: {eq: FAILED}, study: {hasRuns: true}}", {"status": {"eq": "FAILED"}, "study": {"hasRuns": True}}),
        ('{or: [{id: {in: ["a", "b"]}}, {id: {}}]}', {"or": [{"id": {"in": ["a", "b"]}}, {"id": {}}]}),
        ("{}", {}),
        ("null", None),
    ]
    for literal, value in values:
        written = cost_of(engine, f"{{ runs(filter: {literal}) {{ totalCount }} }}", None, LARGE)
        text = "query ($f: RunFilter) { runs(filter: $f) { totalCount } }"
        assert cost_of(engine, text, {"f": value}, LARGE) == written


# --- what passes


@pytest.mark.parametrize("limits", [DEFAULTS, STRICT], ids=["development", "production"])
@pytest.mark.parametrize("name", common_queries())
def test_common_questions_pass(name: str, limits: Limits) -> None:
    """On a database of 100,000 runs; the docs list them."""
    cost_of(Engine(SCHEMA, limits), common_queries()[name], VARIABLES.get(name), LARGE)


async def test_common_questions_are_answered(database: MerlinDatabase) -> None:
    """All 23 of them, without an error."""
    engine = Engine(SCHEMA, STRICT)
    assert len(common_queries()) == 23
    for name, text in common_queries().items():
        assert (await execute(database, text, VARIABLES.get(name), engine)).errors == [], name


async def test_a_page_counts_no_more_than_there_are(database: MerlinDatabase) -> None:
    """The largest pages within each other pass where the database is small."""
    text = """{ runs(first: 500) { nodes { id status study { name } workers { name physicalWorkers {
                nodes { name host status } } } } } }"""
    assert (await execute(database, text, None, Engine(SCHEMA, DEFAULTS))).errors == []


# --- what is refused

TERMS, MORE_TERMS = (
    {"f": {"or": [{"workspace": {"contains": str(number)}} for number in range(count)]}} for count in (1_000, 3_000)
)
NESTED = " ".join(
    f"a{n}: runs(orderBy: {{field: STATUS, direction: ASC}}, first: 1) {{ totalCount }}" for n in range(49)
)
PAGES = """{ runs(first: 500) { nodes { workers { runs(first: 500) { nodes { id workspace status } } } } } }"""


@pytest.mark.parametrize(
    ("text", "variables", "limit"),
    [
        ("query ($f: RunFilter) { runs(filter: $f) { totalCount } }", TERMS, "terms"),
        (f"{{ logicalWorkers(first: 60) {{ nodes {{ {NESTED} }} }} }}", None, "cost"),
        (PAGES, None, "cost"),
        (
            "mutation ($f: RunFilter!) { deleteRuns(input: {filter: $f, dryRun: true}) { deletedIds } }",
            MORE_TERMS,
            "terms",
        ),
    ],
    ids=["conditions", "nested orders", "pages", "conditions of a mutation"],
)
def test_what_takes_long_is_refused(text: str, variables: dict[str, Any] | None, limit: str) -> None:
    """Before it is executed, by the measure that it exceeds."""
    with pytest.raises(OperationError) as refused:
        cost_of(Engine(SCHEMA, DEFAULTS), text, variables, LARGE)
    assert limit in [error["extensions"]["limit"] for error in refused.value.errors]


@pytest.mark.parametrize(
    "text",
    [
        "{ runs(first: %s) { nodes { workers { runs(first: 500) { nodes { id workspace status } } } } } }",
        "{ logicalWorkers { nodes { id runs(first: %s) { nodes { id workers { runs { nodes { id } } } } } } } }",
        "{ runs(first: %s) { nodes { ...F } } } fragment F on Run { workers { runs { nodes { id study { id } } } } }",
    ],
)
def test_a_refusal_says_what_would_pass(text: str) -> None:
    """It names the field that multiplies, its count, and a page size; with that size the operation passes."""
    engine = Engine(SCHEMA, DEFAULTS)
    with pytest.raises(OperationError) as refused:
        cost_of(engine, text % 500, None, LARGE)
    (error,) = refused.value.errors
    told = error["extensions"]
    assert told["field"] in error["message"]
    assert f"first: {told['first']} " in error["message"]
    assert told["first"] < told["count"]
    cost_of(engine, with_first(text % 500, told["field"], told["first"]), None, LARGE)


def with_first(text: str, coordinate: str, first: int) -> str:
    """The document with another page size of each field with this coordinate."""
    document = parse(text)
    types = TypeInfo(CORE)

    class Pages(Visitor):
        def enter_field(self, node: FieldNode, *_: object) -> FieldNode | None:
            parent = types.get_parent_type()
            assert parent is not None
            if f"{parent.name}.{node.name.value}" != coordinate:
                return None
            page = (ArgumentNode(name=NameNode(value="first"), value=IntValueNode(value=str(first))),)
            return FieldNode(
                name=node.name,
                alias=node.alias,
                arguments=page,
                directives=node.directives,
                selection_set=node.selection_set,
            )

    return print_ast(visit(document, TypeInfoVisitor(types, Pages())))


def test_an_invalid_document_is_validated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused again from memory, with the same errors."""
    engine = Engine(SCHEMA, DEFAULTS)
    text = "{ " + " ".join(f"nothing{number}" for number in range(100)) + " }"
    with pytest.raises(OperationError) as first:
        engine.parse(text)

    def fail(*_: object) -> None:
        raise AssertionError("it is validated again")

    monkeypatch.setattr(documents, "validate", fail)
    with pytest.raises(OperationError) as second:
        engine.parse(text)
    assert [str(error) for error in second.value.errors] == [str(error) for error in first.value.errors]


def test_what_is_remembered_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents, refusals and functions: many large ones take no more than a few."""
    text = f"{{ {' '.join(f'a{n}_%d: __typename' for n in range(300))} }}"
    one = Engine(SCHEMA, Limits(root_fields=1_000, aliases=1_000))
    one.parse(text.replace("%d", "x"))
    monkeypatch.setattr(documents, "MAX_BYTES", 16 * one.cache_sizes["documents"])
    engine = Engine(SCHEMA, Limits(root_fields=1_000, aliases=1_000))
    for number in range(40):
        engine.parse(text.replace("%d", str(number)))
    assert 40 * one.cache_sizes["documents"] > documents.MAX_BYTES + documents.MAX_COST_BYTES
    assert engine.cache_sizes["documents"] <= documents.MAX_BYTES + documents.MAX_COST_BYTES


def test_a_forgotten_document_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no cycle: the memory of many does not wait for a collection of old garbage, which a server seldom makes."""
    count = 600
    monkeypatch.setattr(documents, "MAX_BYTES", 2**20)
    engine = Engine(SCHEMA, DEFAULTS)
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            engine.parse(f"{{ a{number}: __typename runs(first: 1) {{ totalCount nodes {{ id workspace status }} }} }}")
            if not number % 100:
                gc.collect(1)  # the young garbage, that of validations
        gc.collect(1)
        assert len(engine._documents._known) < count
        before = len(gc.get_objects())
        gc.collect()
        assert before - len(gc.get_objects()) < count
    finally:
        gc.enable()
