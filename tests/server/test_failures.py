"""Whatever goes wrong inside an operation is told, with a code, and what nobody foresaw is masked and logged."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random
from typing import Any

import pytest
from graphql import Executor, parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema import documents, errors, mutation_executor, operation
from schema.build import make_schema
from schema.compiler.compiler import Compiler
from schema.context import Context
from schema.engine import Engine
from schema.errors import MAX_ERRORS
from schema.limits import Limits
from schema.measures import measure
from schema.operation import OperationError
from server.database.change_log import ChangeLog
from server.database.managers import RunManager, StudyManager
from server.database.merlin_database import MerlinDatabase, opened
from tests.schema.conftest import world  # noqa: F401 - a fixture
from tests.support.asking import OPERATIONS, ask, execute
from tests.support.compiler import SCHEMA, WORDS, World
from tests.support.documents import DocumentMaker
from tests.support.records import memory_of, run, study

pytestmark = pytest.mark.anyio

OWN = make_schema()
PLAIN = Engine(OWN, compiled=False)
ROOT = Path(__file__).parents[2]
HUGE = "1" * 5_000

# --- large numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "{ runs(first: HUGE) { totalCount } }",
        "{ runs(last: -HUGE) { totalCount } }",
        "{ study(name: HUGE) { runs(first: HUGE) { nodes { id } } } }",
        "query ($n: Int = HUGE) { runs(first: $n) { totalCount } }",
        "{ physicalWorkers(filter: {restartCount: {eq: HUGE}}) { totalCount } }",
        "{ runs(filter: {launchedAt: {before: HUGE}}) { totalCount } }",
        "{ runs(filter: {status: {eq: HUGE}}) { totalCount } }",
        "subscription { live(throttle: HUGE) { runs(first: HUGE) { totalCount } } }",
        "mutation { updatePhysicalWorker(input: {id: 1, restartCount: HUGE}) { effects { entityId } } }",
    ],
)
@pytest.mark.parametrize("number", [HUGE, f"{HUGE}.5", f"{HUGE}e5"], ids=["whole", "fraction", "exponent"])
async def test_a_number_that_is_too_large_for_anything_is_refused(query: str, number: str) -> None:
    """As a literal that does not fit, wherever it stands; also where a page's size is looked at before that."""
    async with opened(await memory_of()) as database:
        result = await execute(database, query.replace("HUGE", number))
    assert result.data is None
    for error in result.errors:
        assert error.extensions["code"] == "GRAPHQL_VALIDATION_FAILED"


@pytest.mark.parametrize("value", [10**4_000, -(10**30), 1e30, 2**31], ids=lambda value: str(value)[:12])
async def test_a_variable_that_is_too_large_is_refused(value: float) -> None:
    """With the name of the variable."""
    async with opened(await memory_of()) as database:
        result = await execute(database, "query ($n: Int) { runs(first: $n) { totalCount } }", {"n": value})
        (error,) = result.errors
        assert error.extensions["code"] == "BAD_USER_INPUT"
        assert "$n" in error.message
        found = await ask(database, "query ($id: ID!) { node(id: $id) { id } }", id=int("9" * 4_000))
        assert found == {"node": None}


def test_a_page_of_many_digits_is_measured() -> None:
    """By the commands, too, which measure an operation that is not valid."""
    document = parse(f"{{ runs(first: {HUGE}) {{ nodes {{ id }} }} }}")
    (definition,) = document.definitions
    assert measure(OWN._schema, document, definition).cost > 0  # type: ignore[arg-type]  # it is one


# --- what nobody foresaw ------------------------------------------------------------------------------------------

QUERY = "query ($f: RunFilter) { runs(filter: $f) { totalCount } }"
LIVE = "subscription ($f: RunFilter) { runChanges(filter: $f, snapshot: true) { kind } }"
MUTATION = 'mutation { createStudy(input: {name: "new"}) { created } }'
PLACES: dict[str, tuple[object, str, list[str]]] = {
    "reading": (documents, "parse", [QUERY, LIVE, MUTATION]),
    "validating": (documents, "validate", [QUERY, LIVE, MUTATION]),
    "measuring": (documents, "measure", [QUERY, LIVE, MUTATION]),
    "looking for roles": (documents, "coordinates_of", [QUERY, LIVE, MUTATION]),
    "variables": (Executor, "build", [LIVE]),
    "executing": (mutation_executor, "execute_root_selection_set", [MUTATION]),
    "a compiled function": (Compiler, "answer", [QUERY, LIVE, MUTATION]),
    "a resolver": (RunManager, "all", [QUERY, LIVE]),
    "a mutation": (StudyManager, "create", [MUTATION]),
    "a source": (ChangeLog, "follow", [LIVE]),
    "writing an answer": (operation, "encode_json", [QUERY, LIVE, MUTATION]),
}
CASES = [(place, query) for place, (_, _, queries) in PLACES.items() for query in queries]
RAISED = [RuntimeError, RecursionError, OSError, TimeoutError, ValueError, MemoryError, KeyError]
SECRET = "redis://:hunter2@host"
TOO_DEEP = {"reading", "validating", "measuring", "variables"}
"""Where Python's recursion ends by what a client has sent."""


@pytest.mark.parametrize(("place", "query"), CASES)
@pytest.mark.parametrize("error", RAISED)
async def test_whatever_is_raised_is_told(
    place: str,
    query: str,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wherever: as an error with a code, of which the log says more and the client no more than an id."""
    caplog.set_level(logging.ERROR)
    async with opened(await memory_of(run(1))) as database:
        server = Engine(OWN)

        def fail(*_args: Any, **_given: Any) -> Any:
            raise error(SECRET)

        owner, name, _ = PLACES[place]
        monkeypatch.setattr(owner, name, fail)
        result = await execute(database, query, {"f": {}}, server)
        monkeypatch.undo()
    (told,) = result.errors
    assert SECRET not in told.message
    if error is RecursionError and place in TOO_DEEP:
        assert told.extensions["code"] == "BAD_USER_INPUT"
        assert "nested too deeply" in told.message
        return
    assert told.extensions["code"] == "INTERNAL_SERVER_ERROR"
    assert told.extensions["id"] in told.message
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert told.extensions["id"] in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], error)


async def test_a_stored_value_that_has_no_answer_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """graphql-core's words for it are not told: no client can help it."""
    monkeypatch.setattr(MerlinDatabase, "revision", 2**40)
    async with opened(await memory_of()) as database:
        for server in (OPERATIONS, PLAIN):
            (error,) = (await execute(database, "{ database { revision } }", None, server)).errors
            assert error.extensions["code"] == "INTERNAL_SERVER_ERROR"
            assert str(2**40) not in error.message


# --- codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (
            "query ($d: OrderDirection = ASC) { studies(orderBy: {field: NAME, direction: $d}) { totalCount } }",
            {"d": None},
        ),
        ("query ($v: Boolean = true) { studies { totalCount @include(if: $v) } }", {"v": None}),
        ("query ($v: Boolean = true) { __typename @skip(if: $v) }", {"v": None}),
        ("query ($v: Int!) { runs(first: $v) { totalCount } }", {}),
        ("query ($v: Int) { runs(first: $v) { totalCount } }", {"v": "1"}),
        ("subscription ($v: Boolean = true) { runChanges(snapshot: $v) { kind } }", {"v": None}),
        ("subscription ($v: Int = 1) { live(throttle: $v) { __typename } }", {"v": None}),
        ("mutation ($v: Boolean = true) { deleteAll(input: {kind: RUN, confirm: $v}) { deletedIds } }", {"v": None}),
        ("{ runs(first: 0) { totalCount } }", {}),
    ],
)
@pytest.mark.parametrize("server", [OPERATIONS, PLAIN], ids=["compiled", "general"])
async def test_what_a_client_gets_wrong_is_bad_user_input(server: Engine, query: str, variables: Any) -> None:
    """Also what graphql-core finds only when it executes."""
    async with opened(await memory_of()) as database:
        (error,) = (await execute(database, query, variables, server)).errors
    assert error.extensions["code"] == "BAD_USER_INPUT"


@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=True, note_method_calls=False))
def test_every_error_has_a_code(world: World, random: Random) -> None:  # noqa: F811 - the fixture
    """Of any documents with any variables, most of them wrong somewhere."""
    known = codes_of_operations()
    for _ in range(5):
        asked = DocumentMaker(SCHEMA._schema, WORDS, random).asked("query", times=3)
        for values in asked.variables:
            try:
                operation = world.plain.parse(asked.text, asked.name)
                result = world.runner.run(_first(world.plain, operation, values, world.context))
            except OperationError as error:
                result = error.errors
            for told in result:
                assert told["extensions"]["code"] in known, told


async def _first(server: Engine, operation: Any, values: dict[str, Any], context: Context) -> list[Any]:
    answers = server.execute(operation, values, context)
    try:
        return (await anext(answers)).errors
    finally:
        await answers.aclose()


def codes_of_operations() -> set[str]:
    return {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, str)}


# --- many errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 5, 6, 8, 50])
async def test_each_null_has_its_error_or_the_last_says_how_many_more(count: int) -> None:
    """However many fields fail."""
    fields = " ".join(f"f{number}: runs(first: 0) {{ totalCount }}" for number in range(count))
    server = Engine(OWN, Limits(aliases=1_000))
    query = f"{{ {fields} }}".replace("runs(first: 0) { totalCount }", "run { id }")
    async with opened(await memory_of(study(1))) as database:
        result = await execute(database, query, None, server)
    assert len(result.data) == count
    assert set(result.data.values()) == {None}
    assert len(result.errors) <= MAX_ERRORS
    own = [error for error in result.errors if error.extensions["code"] == "BAD_USER_INPUT"]
    more = [error.extensions["more"] for error in result.errors if error.extensions["code"] == "MORE_ERRORS"]
    assert len(own) + sum(more) == count
    assert bool(more) is (count > MAX_ERRORS)
    assert all(str(number) in result.errors[-1].message for number in more)


async def test_the_last_of_many_mistakes_says_that_there_are_more() -> None:
    """Where a document is not valid, they are not counted to the end."""
    async with opened(await memory_of()) as database:
        result = await execute(database, "{ " + " ".join(f"nope{number}" for number in range(45)) + " }")
    assert len(result.errors) == MAX_ERRORS
    assert "Too many validation errors" in result.errors[-1].message
    assert {error.extensions["code"] for error in result.errors} == {"GRAPHQL_VALIDATION_FAILED"}
