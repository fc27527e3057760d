"""Introspection within the limits of production: tools pass, and what recurses is bounded."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest
from graphql import build_client_schema, get_introspection_query

from schema.build import make_schema
from schema.engine import Engine
from schema.limits import STRICT, Limits
from server.database.merlin_database import MerlinDatabase, opened
from tests.schema.test_limits import measured
from tests.support.asking import execute
from tests.support.records import memory_of, run

NODE = shutil.which("node")
PACKAGES = Path(__file__).parents[1]
OPERATIONS = Engine(make_schema(), STRICT)
OPTIONS = (
    "descriptions",
    "specified_by_url",
    "directive_is_repeatable",
    "schema_description",
    "input_value_deprecation",
    "one_of",
)
OF_GRAPHQL_JS = """
import * as graphql from "graphql";
const names = [
  "descriptions", "specifiedByUrl", "directiveIsRepeatable", "schemaDescription", "inputValueDeprecation", "oneOf",
];
const queries = [];
for (let chosen = 0; chosen < 2 ** names.length; chosen++) {
  const options = Object.fromEntries(names.map((name, bit) => [name, Boolean(chosen & (1 << bit))]));
  queries.push(graphql.getIntrospectionQuery(options));
}
console.log(JSON.stringify(queries));
"""


def of_graphql_core() -> set[str]:
    """Those of graphql-core with any options; more than nine levels of types are what older tools send."""
    return {
        get_introspection_query(**dict(zip(OPTIONS, chosen, strict=True)), type_depth=depth)
        for chosen in product((False, True), repeat=len(OPTIONS))
        for depth in (7, 9, 13)
    }


def of_graphql_js() -> set[str]:
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", OF_GRAPHQL_JS], cwd=PACKAGES, capture_output=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    async with opened(await memory_of(run(1, "/one"))) as found:
        yield found


@pytest.mark.anyio
async def test_what_tools_send_is_answered_in_production(database: MerlinDatabase) -> None:
    """With any options; the answer makes the same schema."""
    queries = of_graphql_core()
    assert max(measured(query).introspection_depth for query in queries) == 19
    for query in queries:
        assert OPERATIONS.parse(query)
    result = await execute(database, max(queries, key=len), operations=OPERATIONS)
    assert result.errors == []
    assert "runs" in build_client_schema(result.data).query_type.fields  # type: ignore[union-attr]


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (PACKAGES / "node_modules").exists(), reason="npm has not installed tests/package.json")
def test_what_graphql_js_sends_is_taken_in_production() -> None:
    """As GraphiQL, graphql-codegen, Insomnia and others use it."""
    queries = of_graphql_js()
    assert len(queries) > 30
    for query in queries:
        assert OPERATIONS.parse(query)


def deep(below: str, levels: int, root: str = "__schema { types") -> str:
    return f"{{ {root} {{ " + below * levels + "name" + " }" * (below.count("{") * levels + 1 + root.count("{")) + " }"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "message"),
    [
        (deep("ofType { ", 30), "The operation's introspection depth: 33, but the maximum is 25."),
        (deep("ofType { ", 100), "The operation's introspection depth: 103, but the maximum is 25."),
        (deep("fields { type { ", 3), "Maximum introspection depth exceeded"),
        (deep("interfaces { possibleTypes { ", 2), "The operation's cost: 111112, but the maximum is 100000."),
        (deep("fields { args { type { ", 3, '__type(name: "Run")'), "The operation's cost: 2121212"),
        ("{ ...a } fragment a on Query { " + deep("ofType { ", 30)[2:], "The operation's introspection depth: 33"),
        (
            '{ __type(name: "Run") { name } run(id: 1) { ' + "parent { " * 12 + "id" + " }" * 12 + " } }",
            "The operation's depth: 14, but the maximum is 12.",
        ),
    ],
    ids=["types of types", "many types of types", "fields", "interfaces", "arguments", "a fragment", "other fields"],
)
async def test_what_recurses_is_refused(database: MerlinDatabase, query: str, message: str) -> None:
    """By the depth, or by how often lists are in each other; the depth of other fields keeps its limit."""
    result = await execute(database, query, operations=OPERATIONS)
    assert result.data is None
    assert message in " ".join(error.message for error in result.errors)


@pytest.mark.anyio
async def test_what_is_wide_is_ended_by_its_budget(database: MerlinDatabase) -> None:
    """Lists are longer than was assumed: what they hold is counted as it is executed."""
    small = Engine(make_schema(), Limits(cost=1_000))
    wide = "{ __schema { types { fields { name description isDeprecated type { name kind } } } } }"
    assert 500 < measured(wide).cost < 1_000
    result = await execute(database, wide, operations=small)
    assert result.data is None
    assert ["spent more than 1000 points" in error.message for error in result.errors] == [True]
