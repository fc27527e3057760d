"""What is left to graphql-core, and that no text of a client gets into the source."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NewType

import pytest
import strawberry
from graphql import (
    OperationDefinitionNode,
    parse,
)
from strawberry.schema.config import StrawberryConfig

from schema.changes import RunChange
from schema.compiler import compiler
from schema.compiler.compiler import Compiled, compile_operation
from schema.compiler.errors import NotCompilableError
from schema.engine import Engine
from server.database.change_log import ChangeKind
from tests.support.compiler import SCHEMA, UNLIMITED, World, answer, asked, settled
from tests.support.records import uid

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
        (
            SCHEMA,
            "mutation { a: collectGarbage(input: {}) { deletedIds } b: collectGarbage(input: {}) { deletedIds } }",
            "Several mutations are not compiled.",
        ),
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
        told = [
            world.runner.run(
                settled(server._result(operation, server._documents.variables(operation, None), world.context, root))
            )
            for _ in range(2)
        ]
        expected = world.runner.run(
            settled(plain._result(operation, plain._documents.variables(operation, None), world.context, root))
        )
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
    event = RunChange(kind=ChangeKind.DELETED, run_id=strawberry.ID("x"), run=None, revision=1)
    world._compare(operation, given, event, given)


def test_the_operations_of_a_document_are_told_apart(world: World) -> None:
    """By their names."""
    server, text = Engine(SCHEMA), "query A { a: __typename } query B { b: __typename }"
    for _ in range(2):
        for name, expected in (("A", b'{"data":{"a":"Query"}}'), ("B", b'{"data":{"b":"Query"}}')):
            operation = server.parse(text, name)
            assert world.runner.run(answer(server, operation, {}, world.context)) == expected
    assert server.execution_counts.compiled == 4


def test_functions_are_kept_within_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten, with the lines that tracebacks would show of them."""
    before, largest = len(kept_lines()), 200_000
    monkeypatch.setattr(compiler, "MAX_BYTES", largest)
    server = Engine(SCHEMA, UNLIMITED)
    for number in range(100):
        asked(server, world, f"{{ a{number}: __typename }}")
    assert server.execution_counts.compiled == 100
    assert 0 < len(kept_lines()) - before < 90
    assert server.cache_sizes["functions"] <= 2 * largest


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
