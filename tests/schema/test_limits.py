"""What an operation asks for, measured: the same as by spreading every fragment out, at a fraction of the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, get_introspection_query, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.engine import Engine
from schema.limits import STRICT, Limits, Measures, excesses
from schema.measures import measure
from server.database.merlin_database import opened
from tests.support.asking import execute
from tests.support.records import memory_of, run

SCHEMA = make_schema()._schema
QUERIES = sorted((Path(__file__).parents[2] / "queries").rglob("*.graphql"))


def measured(text: str, variables: dict[str, Any] | None = None) -> Measures:
    document = parse(text)
    (operation,) = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    return measure(SCHEMA, document, operation, variables)


def passed(text: str) -> set[str]:
    return {excess.limit for excess in excesses(measured(text), Limits())}


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("{ __typename }", 1),
        ("{ database { runs } }", 2),
        ("{ runs { totalCount } }", 2),
        ("{ runs(first: 3) { totalCount nodes { id } } }", 1 + 1 + 3 * 2),
        ("{ runs(first: 3) { edges { cursor node { id } } } }", 1 + 3 * (1 + 1 + 2)),
        ("{ runs(last: 2) { nodes { workers { id } } } }", 1 + 2 * (1 + 1 + 10)),
        ("{ runs(first: 2) { nodes { study { runs(first: 5) { nodes { id } } } } } }", 1 + 2 * (1 + 1 + 1 + 5 * 2)),
        ("{ runs { nodes { id } } }", 1 + 50 * 2),
        ('{ nodes(ids: ["a", "b"]) { id } }', 1 + 2),
        ("query ($n: Int = 7) { runs(first: $n) { nodes { id } } }", 1 + 7 * 2),
        ("query ($n: Int) { runs(first: $n) { nodes { id } } }", 1 + 500 * 2),
        ("{ runs(first: 1000000) { nodes { id } } }", 1 + 500 * 2),
    ],
)
def test_a_cost_is_about_the_number_of_fields_of_the_answer(text: str, cost: int) -> None:
    """Page sizes multiply along nesting; without its variables an operation is taken to ask for the largest page."""
    assert measured(text).cost == cost


def test_variables_count_as_they_are_given() -> None:
    """Also null, which is as good as left out."""
    text = "query ($n: Int = 7, $ids: [ID!]!) { runs(first: $n) { nodes { id } } nodes(ids: $ids) { id } }"
    assert measured(text, {"n": 20, "ids": ["a"]}).cost == 1 + 20 * 2 + 2
    assert measured(text, {"n": None, "ids": ["a", "b"]}).cost == 1 + 50 * 2 + 3
    assert measured(text, {"n": 7, "ids": []}).cost == 1 + 7 * 2 + 2


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_the_saved_operations_are_well_within_the_limits(path: Path) -> None:
    """Those of production too, on a large database."""
    assert excesses(measured(path.read_text()), STRICT) == []


def test_introspection_is_within_the_limits() -> None:
    """GraphiQL begins with it."""
    query = get_introspection_query(specified_by_url=True, directive_is_repeatable=True, input_value_deprecation=True)
    assert passed(query) == set()


def bomb(levels: int) -> str:
    spreads = (f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(levels))
    return " ".join(("{ ...f0 }", *spreads, f"fragment f{levels} on Query {{ a: __typename }}"))


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (bomb(60), {"aliases", "cost", "root_fields"}),
        ("{ ...a } fragment a on Query { ...a __typename }", set()),
        ("{ " + "runs(first: 500) { nodes { study { " * 3 + "id" + " } } }" * 3 + " }", {"cost"}),
        ("{ database { " + " ".join(f"a{n}: runs" for n in range(1000)) + " } }", {"aliases"}),
        ("{ __typename " + "@skip(if: false) " * 500 + "}", {"directives"}),
        ("{ run(id: 1) { " + "parent { " * 30 + "id" + " }" * 30 + " } }", {"depth"}),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(60)) + " }", {"root_fields"}),
        ("{ __typename } " + "#" * 100_001, {"characters"}),
        ("{ __typename " + ", ... { __typename }" * 4000 + " }", {"tokens", "root_fields"}),
    ],
    ids=["bomb", "cycle", "pages", "aliases", "directives", "depth", "root fields", "characters", "tokens"],
)
def test_what_is_too_much_is_told_by_its_limit(text: str, limits: set[str]) -> None:
    """With its value and the maximum, however large the value is."""
    assert passed(text) == limits
    for excess in excesses(measured(text), Limits()):
        assert str(excess.maximum) in str(excess)
        assert len(str(excess)) < 150


FIELDS = {
    "Query": ["__typename", "runs(first: 2) { ...RunConnection }", "run(id: 1) { ...Run }", "a: __typename"],
    "RunConnection": ["totalCount", "nodes { ...Run }", "edges { node { ...Run } }"],
    "Run": ["id", "b: status", "workers { id }", "study { runs(last: 3) { ...RunConnection } }", "parent { ...Run }"],
}
"""`...Type` stands for a selection of that type."""


FLAGS = st.booleans()


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str]:
    """An operation whose selections are fragments, and the same with each fragment written out."""
    definitions: list[str] = []

    def flips() -> bool:
        return draw(FLAGS)

    def selection(type_: str, depth: int) -> tuple[str, str]:
        """What stands in the document, and the same without fragments."""
        if definitions and flips():
            same = [(name, plain) for name, of, plain in known if of == type_]
            if same:
                name, plain = draw(st.sampled_from(same))
                return f"...{name}", plain
        chosen: list[str] = draw(st.lists(st.sampled_from(FIELDS[type_]), min_size=1, max_size=3))
        parts, plains = [], []
        for field in chosen:
            inner = next((name for name in FIELDS if f"...{name} " in field), None)
            if inner is None:
                parts.append(field)
                plains.append(field)
            elif depth:
                one, plain = selection(inner, depth - 1)
                parts.append(field.replace(f"...{inner} ", f"{one} "))
                plains.append(field.replace(f"...{inner} ", f"{plain} "))
        body, plain = " ".join(parts) or "__typename", " ".join(plains) or "__typename"
        if flips():
            name = f"f{len(known)}"
            known.append((name, type_, plain))
            definitions.append(f"fragment {name} on {type_} {{ {body} }}")
            return f"...{name}", plain
        return body, plain

    known: list[tuple[str, str, str]] = []
    body, plain = selection("Query", 4)
    return f"{{ {body} }} {' '.join(definitions)}", f"{{ {plain} }}"


@settings(deadline=None, max_examples=200)
@given(documents())
def test_fragments_count_as_what_they_hold(pair: tuple[str, str]) -> None:
    """Measuring each once gives what writing it out each time gives."""
    with_fragments, written_out = map(measured, pair)
    for name in ("depth", "root_fields", "aliases", "cost"):
        assert getattr(with_fragments, name) == getattr(written_out, name)


@pytest.mark.anyio
async def test_what_has_passed_before_says_nothing_of_larger_variables() -> None:
    """The same document is measured anew for other page sizes, lengths of lists, and for null or nothing instead."""
    operations = Engine(make_schema(), Limits(cost=1_100))
    text = "query ($n: Int = 400, $ids: [ID!]!) { runs(first: $n) { nodes { id } } nodes(ids: $ids) { id } }"
    async with opened(await memory_of(*(run(number, f"/{number}") for number in range(500)))) as database:
        for variables, passes in (
            ({"n": 500, "ids": []}, True),
            ({"n": 1, "ids": 500}, True),
            ({"n": 1, "ids": ["x"] * 500}, True),
            ({"n": 500, "ids": ["x"] * 500}, False),
            ({"n": None, "ids": ["x"] * 300}, True),
            ({"ids": ["x"] * 300}, False),
            ({"n": 500, "ids": []}, True),
        ):
            result = await execute(database, text, variables, operations)
            assert all(error.extensions["code"] != "LIMIT_EXCEEDED" for error in result.errors) is passes
