"""An id is one value in all its spellings: every place that takes one is tried, with what `uuid.UUID` reads."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
import pytest
from graphql import (
    ArgumentNode,
    GraphQLField,
    ObjectFieldNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    get_named_type,
    parse,
    visit,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, TaskStatus
from tests.support.asking import OPERATIONS, ask
from tests.support.made_up_workspaces import MadeUp, MadeUpReader, TaskColumns, sampled, step_of
from tests.support.records import logical_worker, memory_of, physical_worker, run, study

pytestmark = pytest.mark.anyio

SCHEMA = make_schema()._schema
PLAIN = Engine(make_schema(), compiled=False)

STUDY = "0a1b2c3d-4e5f-4a6b-8c7d-9e8f7a6b5c4d"
RUN = "1b2c3d4e-5f6a-4b7c-9d8e-8f7a6b5c4d3e"
OTHER = "2c3d4e5f-6a7b-4c8d-ae9f-7a6b5c4d3e2f"
PROCESS = "3d4e5f6a-7b8c-4d9e-bf0a-6b5c4d3e2f1a"
WORKER = logical_worker("sim", ("[merlin]_a",), runs=(RUN,), physical_workers=(PROCESS,))
RECORDS: list[Model] = [
    replace(study(1, runs=(RUN, OTHER)), id=STUDY),
    replace(run(11, study_id=STUDY, workers=(WORKER.id,)), id=RUN),
    replace(run(12, study_id=STUDY), id=OTHER),
    WORKER,
    replace(physical_worker(21, logical_worker_id=WORKER.id), id=PROCESS),
]
IDS = {"study": STUDY, "run": RUN, "other": OTHER, "worker": WORKER.id, "process": PROCESS}

READING = [
    "query ($study: ID!) { node(id: $study) { id } }",
    "query ($run: ID!, $process: ID!) { nodes(ids: [$run, $process]) { id } }",
    "query ($study: ID) { study(id: $study) { id } }",
    "query ($run: ID) { run(id: $run) { id } }",
    "query ($worker: ID) { logicalWorker(id: $worker) { id } }",
    "query ($process: ID) { physicalWorker(id: $process) { id } }",
    "query ($study: ID!) { studyBy(by: {id: $study}) { id } }",
    "query ($run: ID!) { runBy(by: {id: $run}) { id } }",
    "query ($worker: ID!) { logicalWorkerBy(by: {id: $worker}) { id } }",
    "query ($process: ID!) { physicalWorkerBy(by: {id: $process}) { id } }",
    "query ($run: ID) { runs(filter: {id: {eq: $run}}) { totalCount nodes { id } } }",
    "query ($run: ID!) { runs(filter: {id: {in: [$run]}}) { totalCount nodes { id } } }",
    "query ($run: ID!) { runs(filter: {id: {notIn: [$run]}}) { totalCount nodes { id } } }",
    "query ($study: ID) { runs(filter: {studyId: {eq: $study}}) { totalCount } }",
    "query ($worker: String!) { runs(filter: {workerIds: {containsAny: [$worker]}}) { totalCount } }",
    "query ($worker: String!) { runs(filter: {workerIds: {containsAll: [$worker]}}) { totalCount } }",
    "query ($worker: ID!) { runs(filter: {not: {worker: {id: {in: [$worker]}}}}) { totalCount } }",
    "query ($study: ID!) { runCounts(filter: {study: {id: {eq: $study}}}) { count } }",
    "query ($worker: ID) { physicalWorkers(filter: {logicalWorkerId: {eq: $worker}}) { totalCount } }",
    "subscription ($run: ID!) { taskChanges(runId: $run, snapshot: true) { taskId } }",
    f'subscription ($run: ID!) {{ log(runId: $run, taskId: "{task_id(RUN, "a/0")}") {{ text }} }}',
    "subscription ($run: ID!) { changes(ids: [$run], snapshot: true) { entityId } }",
    "subscription ($run: ID!) { runChanges(filter: {id: {notIn: [$run]}}, snapshot: true) { runId } }",
]
TOLD = "userErrors { code message path }"
WRITING = [
    """mutation ($worker: ID!, $run: ID, $other: ID) { createRun(input: {
         studyName: "s", workspace: "/w", queues: [], workerIds: [$worker], parentId: $run, childId: $other
       }) { run { workerIds workers { id } parent { id } child { id } } TOLD } }""",
    "mutation ($run: ID!, $other: ID) { updateRun(input: {id: $run, parentId: $other}) { effects { entityId } TOLD } }",
    "mutation ($run: ID!, $other: ID) { updateRun(input: {id: $run, childId: $other}) { effects { entityId } TOLD } }",
    """mutation ($other: ID!, $worker: ID!) {
         attachWorkers(input: {runId: $other, workerIds: [$worker]}) {
             run { workerIds } effects { entityId } TOLD } }""",
    """mutation ($run: ID!, $worker: ID!) {
         detachWorkers(input: {runId: $run, workerIds: [$worker]}) { run { workerIds } effects { entityId } TOLD } }""",
    "mutation ($run: ID!) { annotate(input: {id: $run, annotations: {a: 1}}) { node { id } TOLD } }",
    "mutation ($run: ID) { deleteRun(input: {id: $run}) { deletedIds TOLD } }",
    "mutation ($run: ID!) { deleteRuns(input: {filter: {id: {notIn: [$run]}}}) { deletedIds TOLD } }",
    "mutation ($study: ID) { deleteStudy(input: {id: $study}) { deletedIds TOLD } }",
    "mutation ($worker: ID) { deleteLogicalWorker(input: {id: $worker, force: true}) { deletedIds TOLD } }",
    "mutation ($process: ID) { deletePhysicalWorker(input: {id: $process}) { deletedIds TOLD } }",
    "mutation ($study: ID!) { deleteStudy(input: {by: {id: $study}}) { deletedIds TOLD } }",
    "mutation ($run: ID!) { deleteRun(input: {by: {id: $run}}) { deletedIds TOLD } }",
    "mutation ($worker: ID!) { deleteLogicalWorker(input: {by: {id: $worker}, force: true}) { deletedIds TOLD } }",
    "mutation ($process: ID!) { deletePhysicalWorker(input: {by: {id: $process}}) { deletedIds TOLD } }",
    """mutation ($process: ID!) {
         updatePhysicalWorker(input: {id: $process, pid: "7"}) { effects { entityId } TOLD } }""",
    """mutation ($worker: ID!) { createPhysicalWorker(input: {name: "celery@a.b", logicalWorkerId: $worker}) {
         physicalWorker { logicalWorkerId logicalWorker { id } } TOLD } }""",
]
WRITING = [text.replace("TOLD", TOLD) for text in WRITING]


class _Places(Visitor):
    """The arguments and input fields that a document names."""

    def __init__(self, type_info: TypeInfo) -> None:
        super().__init__()
        self._type_info = type_info
        self.found: set[str] = set()

    def enter_argument(self, node: ArgumentNode, *_args: object) -> None:
        parent = self._type_info.get_parent_type()
        (field,) = [name for name, it in parent.fields.items() if it is self._type_info.get_field_def()]  # type: ignore[union-attr]
        self.found.add(f"{parent}.{field}({node.name.value})")

    def enter_object_field(self, node: ObjectFieldNode, *_args: object) -> None:
        self.found.add(f"{get_named_type(self._type_info.get_parent_input_type())}.{node.name.value}")


def places_in(text: str) -> set[str]:
    places = _Places(type_info := TypeInfo(SCHEMA))
    visit(parse(text), TypeInfoVisitor(type_info, places))
    return places.found


OF_TASKS = {"Query.task(id)"}
"""Where the id of a task is enough, which has one spelling."""


def places_of_ids() -> set[str]:
    found = {"RunFilter.workerIds"}  # a list of texts, which are ids
    for type_ in SCHEMA.type_map.values():
        for name, field in getattr(type_, "fields", {}).items():
            if isinstance(field, GraphQLField):
                found |= {f"{type_.name}.{name}({key})" for key, it in field.args.items() if is_of_ids(it)}
            elif is_of_ids(field):
                found.add(f"{type_.name}.{name}")
    return found


def is_of_ids(value: Any) -> bool:
    return str(get_named_type(value.type)) == "ID"


def test_every_place_of_an_id_is_tried() -> None:
    """Arguments and fields of inputs, whoever adds one; each of them reads its ids in the same way."""
    assert places_of_ids() - OF_TASKS <= set().union(*map(places_in, READING + WRITING))


def spellings(id_: str) -> st.SearchStrategy[str]:
    """Capitals anywhere, hyphens or none, braces, or a URN."""
    capitals = st.lists(st.booleans(), min_size=len(id_), max_size=len(id_)).map(
        lambda flags: "".join(letter.upper() if flag else letter for letter, flag in zip(id_, flags, strict=True))
    )
    forms = st.sampled_from(["{}", "{{{}}}", "urn:uuid:{}", "uuid:{}"])
    plain = st.builds(lambda text, form: form.format(text), capitals | st.just(id_.upper()), forms)
    return st.builds(lambda text, bare: text.replace("-", "") if bare else text, plain, st.booleans())


SPELLED = st.fixed_dictionaries({name: spellings(id_) for name, id_ in IDS.items()})


def literal(text: str, ids: dict[str, str]) -> str:
    """The document with the ids in it."""
    head, _, body = text.partition(") {")
    for name in re.findall(r"[$](\w+)", head):
        body = re.sub(rf"[$]{name}\b", json.dumps(ids[name]), body)
    return f"{head.partition('(')[0]} {{{body}"


async def answered(database: MerlinDatabase, operations: Engine, text: str, ids: dict[str, str]) -> list[bytes]:
    """By variables and by literals."""
    found = []
    for document in (text, literal(text, ids)):
        operation = operations.parse(document)
        names = re.findall(r"[$](\w+):", document)
        variables = {name: ids[name] for name in names}
        async with aclosing(operations.execute(operation, variables, Context(database, "1", Role.ADMIN))) as answers:
            found.append((await anext(answers)).encoded)
        if operation.type.value == "mutation":
            return found  # what it does is done once
    return found


async def all_answers(operations: Engine, ids: dict[str, str]) -> list[list[bytes]]:
    """Without positions, which name the copy that has answered."""
    found = []
    async with opened(await memory_of(*RECORDS)) as database:
        workspace = MadeUp([step_of("a", TaskColumns(sampled("a", [TaskStatus.RUNNING])))])
        reader = MadeUpReader(database.observations, {RUN: workspace})
        reader.logs[("a/0", LogStream.STDOUT)] = "begun\n"
        reader.observe(RUN)
        found += [await answered(database, operations, text, ids) for text in READING]
    for text in WRITING:
        for document in (text, literal(text, ids)):
            async with opened(await memory_of(*RECORDS)) as database:
                answers = await answered(database, operations, document, ids)
                found.append([answer.replace(str(database.position).encode(), b"") for answer in answers])
    return found


@pytest.fixture(scope="module")
def expected() -> list[list[bytes]]:
    return anyio.run(all_answers, OPERATIONS, IDS)


def test_what_is_compared_is_no_refusal(expected: list[list[bytes]]) -> None:
    """Each of the operations finds what it asks for, and does what it is told."""
    for answers in expected:
        for answer in map(json.loads, answers):
            assert "errors" not in answer
            assert all(not value["userErrors"] for value in answer["data"].values() if "userErrors" in (value or ()))
            assert None not in answer["data"].values()


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=3)
@given(SPELLED, st.sampled_from([OPERATIONS, PLAIN]))
def test_an_id_is_one_value_in_all_its_spellings(
    expected: list[list[bytes]], ids: dict[str, str], operations: Engine
) -> None:
    """In each place, by variables and literals, compiled and not, the answer is that to the id as it is stored."""
    assert anyio.run(all_answers, operations, ids) == expected


@pytest.mark.parametrize("name", [STUDY.upper(), STUDY.replace("-", ""), f"{{{STUDY}}}", "{x}", "A"])
async def test_a_name_is_looked_up_as_it_is_written(name: str) -> None:
    """Also one that looks like an id: a name is a text."""
    async with opened(await memory_of(study(1, name), replace(study(2, "b"), id=STUDY))) as database:
        data = await ask(
            database,
            """query ($name: String!) { study(name: $name) { name }
                 studies(filter: {name: {eq: $name}}) { nodes { name } } }""",
            name=name,
        )
        assert data == {"study": {"name": name}, "studies": {"nodes": [{"name": name}]}}


@pytest.mark.parametrize("id_", ["", "x", "1", 1, STUDY[:-1], f"{STUDY}0", "\ud800", "{" * 40])
async def test_what_is_no_id_stays_what_it_is(id_: str | int) -> None:
    """It finds nothing, and is told as it was given."""
    asked = f"""mutation ($id: ID!) {{ updateRun(input: {{id: $id, status: RUNNING}}) {{ {TOLD} }} }}"""
    async with opened(await memory_of(*RECORDS)) as database:
        assert (await ask(database, "query ($id: ID!) { node(id: $id) { id } }", id=id_))["node"] is None
        (error,) = (await ask(database, asked, id=id_))["updateRun"]["userErrors"]
        assert error["code"] == "NOT_FOUND"
        assert repr(str(id_)) in error["message"]


async def test_an_id_that_is_stored_in_capitals_is_found() -> None:
    """No Merlin writes one; whoever chose it finds its record, in any spelling."""
    capitals = replace(study(1, "a", runs=(RUN,)), id=STUDY.upper())
    records: list[Model] = [capitals, replace(run(11, study_id=capitals.id), id=RUN)]
    asked = """query ($id: ID!) { study(id: $id) { id name } studies(filter: {id: {eq: $id}}) { totalCount }
                 runs(filter: {studyId: {in: [$id]}}) { totalCount } }"""
    async with opened(await memory_of(*records)) as database:
        for id_ in (STUDY, STUDY.upper(), STUDY.replace("-", "")):
            data = await ask(database, asked, id=id_)
            assert data["study"] == {"id": capitals.id, "name": "a"}
            assert (data["studies"]["totalCount"], data["runs"]["totalCount"]) == (1, 1)
        database.backend.store(Key(EntityKind.STUDY, capitals.id), None)  # type: ignore[attr-defined]  # in memory
        await database.feed.refresh([Key(EntityKind.STUDY, capitals.id)])
        assert (await ask(database, asked, id=STUDY))["study"] is None
