"""What is done with a request before its execution is bounded, and the bound is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from graphql import OverlappingFieldsCanBeMergedRule, parse, validate
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.comparisons import LimitedOverlappingFieldsRule
from schema.documents import MAX_LINES, MAX_OPERATIONS, MAX_VALUES, count_values
from schema.engine import Engine
from schema.operation import OperationError
from server.database import slices
from server.database.merlin_database import opened
from server.database.slices import in_slices
from server.errors import RequestError
from server.requests import MAX_OPENINGS, parse_json, parse_long_json
from tests.support.asking import execute
from tests.support.hostile import BODIES, DOCUMENTS, VARIABLES
from tests.support.records import memory_of, run

ENGINE = Engine(make_schema())
SCHEMA = make_schema()._schema


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("fields that differ in a value", "comparisons"),
        ("fragments of a run side by side", "comparisons"),
        ("many objects", "comparisons"),
        ("one field of a run, often", "comparisons"),
        ("many operations", "operations"),
        ("a comment of many lines", "lines"),
        ("an error at the end of many lines", "lines"),
    ],
)
def test_a_document_that_takes_long_to_validate_is_refused(name: str, limit: str) -> None:
    """With the limit, its value and the maximum, each time."""
    for _ in range(2):
        with pytest.raises(OperationError) as refused:
            ENGINE.parse(DOCUMENTS[name])
        (error,) = refused.value.errors
        told = error["extensions"]
        assert (told["code"], told["limit"]) == ("LIMIT_EXCEEDED", limit)
        assert told["value"] > told["maximum"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name",
    ["100,000 values of `in`", "300,000 wrong values", "unknown keys", "empty filters in a list", "100,000 queues"],
)
async def test_variables_of_too_many_values_are_refused(name: str) -> None:
    """Before any of them is read."""
    hostile = VARIABLES[name]
    assert hostile.variables is not None
    async with opened(await memory_of(run(1))) as database:
        result = await execute(database, hostile.query, dict(hostile.variables))
    assert result.errors[0].extensions["limit"] == "values"


@pytest.mark.anyio
async def test_a_list_of_a_few_thousand_ids_is_answered() -> None:
    async with opened(await memory_of(run(1))) as database:
        query = "query ($f: RunFilter) { runs(filter: $f) { totalCount } }"
        ids = [run(number).id for number in range(MAX_VALUES - 20)]
        result = await execute(database, query, {"f": {"id": {"in": ids}}})
    assert (result.errors, result.data) == ([], {"runs": {"totalCount": 1}})


@pytest.mark.anyio
async def test_a_deep_annotation_is_refused() -> None:
    """As bad input, not as an error of the server."""
    hostile = VARIABLES["a deep annotation"]
    assert hostile.variables is not None
    async with opened(await memory_of(run(1))) as database:
        result = await execute(database, hostile.query, dict(hostile.variables))
    assert result.errors[0].extensions["code"] == "BAD_USER_INPUT"


def test_as_many_fragments_as_a_generated_document_has_are_accepted() -> None:
    """One for each component, spread where that component stands, and each with the key fields of its entity."""
    names = range(200)
    chains = (
        f"fragment f{n} on Run {{ id status {'' if n % 10 == 9 else f'parent {{ id ...f{n + 1} }}'} }}" for n in names
    )
    spread = " ".join(f"...f{n}" for n in names if n % 10 == 0)
    ENGINE.parse(f"{{ runs(first: 1) {{ nodes {{ id {spread} }} }} }} {' '.join(chains)}")


def naive_count(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 4 * isinstance(value, dict) + sum(1 + naive_count(item) for item in inner)


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner)
    ).map(lambda value: {"v": value}),
    st.integers(0, 3),
)
def test_values_are_counted_wherever_they_stand(value: dict[str, Any], more: int) -> None:
    """As a simple count of all that lists and objects hold says."""
    filling = MAX_VALUES - naive_count(value) - 2 + more
    variables = {**value, "filling": list(range(filling))}
    if naive_count(variables) <= MAX_VALUES:
        count_values(json.loads(json.dumps(variables)))
    else:
        with pytest.raises(OperationError, match="values"):
            count_values(variables)


FIELDS = (
    "id",
    "status",
    "a: id",
    "a: status",
    "a: workspace",
    "parent { id }",
    "parent { id: status }",
    "...f",
    "...g",
)


@settings(max_examples=60)
@given(*[st.lists(st.sampled_from(FIELDS), min_size=1, max_size=6)] * 3)
def test_the_bounded_rule_gives_the_verdicts_of_graphql_core(
    first: list[str], second: list[str], third: list[str]
) -> None:
    """The same errors for documents below its bound."""
    parts = [" ".join(part) for part in (first, second, third)]
    document = parse(
        f"{{ run(id: 1) {{ {parts[0]} }} }} fragment f on Run {{ {parts[1]} }} fragment g on Run {{ {parts[2]} }}"
    )
    mine, theirs = (
        validate(SCHEMA, document, [rule]) for rule in (LimitedOverlappingFieldsRule, OverlappingFieldsCanBeMergedRule)
    )
    assert mine == theirs


def test_as_many_lines_as_the_limit_says_are_accepted() -> None:
    ENGINE.parse("{ __typename" + "\n" * (MAX_LINES - 1) + "}")


def test_as_many_operations_as_the_limit_says_are_accepted() -> None:
    ENGINE.parse(" ".join(f"query q{n} {{ __typename }}" for n in range(MAX_OPERATIONS)), "q0")


@pytest.mark.parametrize("name", ["500,000 empty lists"])
def test_a_body_of_too_many_lists_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=str(MAX_OPENINGS)):
        parse_json(BODIES[name], "body")


def test_a_body_of_as_many_lists_as_the_limit_says_is_read() -> None:
    assert len(parse_json("[" + "[]," * (MAX_OPENINGS - 2) + "[]]", "body")) == MAX_OPENINGS - 1


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["many objects", "fragments of a run side by side", "one field of a run, often"])
async def test_a_long_document_is_read_in_slices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of its fields too: it can give way after each."""
    monkeypatch.setattr(slices, "STEP_SECONDS", 0.0)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1

    engine = Engine(make_schema())
    with pytest.raises(OperationError, match="comparisons"):
        await in_slices(lambda: engine.parse(DOCUMENTS[name]), turn)
    assert turns > 1_000


@pytest.mark.anyio
async def test_long_lists_are_compiled_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the answer is."""
    monkeypatch.setattr(slices, "STEP_SECONDS", 0.0)
    pages = " ".join(f"a{n}: runs(filter: $f) {{ totalCount }}" for n in range(40))
    variables = {"f": {"id": {"in": [f"00000000-0000-4000-8000-{n:012d}" for n in range(4_000)]}}}
    async with opened(await memory_of(run(1))) as database:
        asking = asyncio.ensure_future(execute(database, f"query ($f: RunFilter) {{ {pages} }}", variables))
        others = 0
        while not asking.done():
            await asyncio.sleep(0)
            others += 1
        assert not (await asking).errors
    assert others > 3


@pytest.mark.anyio
async def test_a_long_body_is_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can give way after each of its numbers."""
    monkeypatch.setattr(slices, "STEP_SECONDS", 0.0)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1

    body = b"[" + b",".join([b"0.1234567890123456"] * 5_000) + b"]"
    assert await parse_long_json(body, "body", turn) == parse_json(body, "body")
    assert turns > 5_000
