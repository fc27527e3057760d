"""JSON keeps what it is given, or refuses it: numbers to the digit, and variables inside literals."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import anyio
import httpx
import pytest
from graphql import Undefined, get_named_type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.engine import Engine
from server.database.backends.memory import MemoryBackend
from server.database.json_numbers import UnkeptNumber, load_exactly
from server.database.merlin_database import opened
from server.errors import RequestError
from server.requests import parse_json
from server.settings import Settings
from tests.support.asking import OPERATIONS, ask, execute
from tests.support.live import serving
from tests.support.raw_store import read_store
from tests.support.records import logical_worker, memory_of, physical_worker, run, uid

pytestmark = pytest.mark.anyio

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = Engine(make_schema(), compiled=False)
SCHEMA = make_schema()._schema

# --- numbers ------------------------------------------------------------------------------------------------------

DIGITS = st.text("0123456789", min_size=1, max_size=30)
WHOLE = st.integers().map(str) | st.integers(-(10**40), 10**40).map(str)
FRACTION = st.builds("{}.{}".format, WHOLE, DIGITS) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
MANTISSA = WHOLE | FRACTION.filter(lambda it: "e" not in it)
EXPONENT = st.builds("{}{}{}".format, MANTISSA, st.sampled_from(["e", "E+", "e-"]), st.integers(0, 500))
NUMBERS = WHOLE | FRACTION | EXPONENT
HARD = [
    "12345678901234567890123",
    "18446744073709551616",
    "-9223372036854775809",
    "9007199254740993.0",
    "0.1234567890123456789",
    "0.10000000000000001",
    "0.1000000000000000055511151231257827",
    "1e400",
    "-1e400",
    "1e-400",
    "4.9e-324",
    "1.2345678901234567e-310",
    "0e999999999999",
    "1e999999999999999999999",
    "1" * 5_000,
    "0." + "1" * 5_000,
]


def is_kept(text: str, value: object) -> bool:
    """Whether a number, written with as many digits as it was given with, is the same again."""
    if isinstance(value, int):
        return Decimal(text) == value
    digits = text.lower().partition("e")[0].lstrip("-").replace(".", "").strip("0")
    assert isinstance(value, float)
    if not digits or not value:
        return not digits and not value
    rounded = Context(prec=len(digits), rounding=ROUND_HALF_EVEN).create_decimal(value)
    return Decimal(text) in (rounded, Decimal(repr(value)))


def might_be_kept(text: str) -> bool:
    if text.lstrip("-").isdigit():
        return len(text) <= 4_300
    return is_kept(text, float(text)) if abs(float(text)) != float("inf") else False


def check(text: str) -> None:
    """Whatever surrounds it."""
    value = load_exactly(f'{{"a": ["x", {{"b": {text}}}]}}')["a"][1]["b"]
    if isinstance(value, UnkeptNumber):
        assert value.text == text
        assert not might_be_kept(text)
    else:
        assert is_kept(text, value)


@settings(SLOW, max_examples=80)
@given(NUMBERS)
def test_a_number_is_kept_or_known_as_one_that_is_not(text: str) -> None:
    """Of whatever size, with however many digits: it is never another one."""
    check(text)


@pytest.mark.parametrize("text", HARD, ids=lambda text: text[:24])
def test_a_hard_number_is_kept_or_known_as_one_that_is_not(text: str) -> None:
    """At the edges of what 64 bits, doubles and Python hold."""
    check(text)


LEAVES = st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@settings(SLOW, max_examples=60)
@given(st.recursive(LEAVES, lambda it: st.lists(it) | st.dictionaries(st.text(), it), max_leaves=8))
def test_other_values_are_read_as_ever(value: Any) -> None:
    """What any writer of JSON writes is read back, from bytes and from texts."""
    text = json.dumps(value)
    assert load_exactly(text) == load_exactly(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1,]", "NaN", "Infinity", "[1e400, NaN]", "01", "1e400x", "'a'", "[1e400"),
        *('"\\ud800"', '["\\udc00", 1e400]', "[" * 2_000 + "1e400" + "]" * 2_000, "\ufeff[1e400]"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    """With numbers that are read in a way of their own, too."""
    with pytest.raises(RequestError, match="this is not valid JSON"):
        parse_json(text.encode("utf-8", "surrogatepass"), "body")


# --- stored -------------------------------------------------------------------------------------------------------

WORKER = logical_worker("sim")
NEW_RUN = 'studyName: "s", workspace: "/w", queues: []'
NEW_WORKER = f'name: "w", logicalWorkerId: "{WORKER.id}"'
PLACES = {
    "CreateRunInput.parameters": f"createRun(input: {{{NEW_RUN}, parameters: HERE}})",
    "CreateRunInput.samples": f"createRun(input: {{{NEW_RUN}, samples: HERE}})",
    "CreateRunInput.additionalData": f"createRun(input: {{{NEW_RUN}, additionalData: HERE}})",
    "UpdateRunInput.additionalData": f'updateRun(input: {{id: "{uid(1)}", additionalData: HERE}})',
    "AnnotateInput.annotations": f'annotate(input: {{id: "{uid(1)}", annotations: HERE}})',
    "CreatePhysicalWorkerInput.args": f"createPhysicalWorker(input: {{{NEW_WORKER}, args: HERE}})",
    "CreatePhysicalWorkerInput.additionalData": f"createPhysicalWorker(input: {{{NEW_WORKER}, additionalData: HERE}})",
    "UpdatePhysicalWorkerInput.args": f'updatePhysicalWorker(input: {{id: "{uid(2)}", args: HERE}})',
}
WAYS = {
    "a literal": ("mutation", "{a: [NUMBER]}", None),
    "a variable": ("mutation ($v: JSON!)", "$v", '{"v": {"a": [NUMBER]}}'),
    "a variable in a literal": ("mutation ($v: JSON!)", "{a: [$v]}", '{"v": NUMBER}'),
}


def test_every_place_of_json_is_tried() -> None:
    """Whoever adds one to an input; a filter stores nothing."""
    found = {
        f"{type_.name}.{name}"
        for type_ in SCHEMA.type_map.values()
        for name, field in getattr(type_, "fields", {}).items()
        if type_.name.endswith("Input") and get_named_type(field.type).name == "JSON"
    }
    assert found == set(PLACES)


async def store(place: str, way: str, number: str) -> list[str]:
    """The codes of what is refused, or else, as it is stored, the one number that was given."""
    head, value, variables = WAYS[way]
    field = PLACES[place].replace("HERE", value)
    query = f"{head} {{ {field} {{ userErrors {{ code path }} }} }}".replace("NUMBER", number)
    given = None if variables is None else parse_json(variables.replace("NUMBER", number), "body")
    backend = await memory_of(run(1), WORKER, physical_worker(2, logical_worker_id=WORKER.id))
    async with opened(backend) as database:
        result = await execute(database, query, given)
        assert result.errors == []
        ((payload,),) = [result.data.values()]
        if payload["userErrors"]:
            (error,) = payload["userErrors"]
            assert error["path"] == ["input", place.partition(".")[2]]
            assert numbers_in(backend) == []
            return [error["code"]]
        return numbers_in(backend)


def numbers_in(backend: MemoryBackend) -> list[str]:
    """As they stand in the JSON under the key that was given."""
    texts = [text for raw in read_store(backend).records.values() for text in raw.values() if '{"a": [' in text]
    texts += [text for text in backend._notes.values() if text.startswith('{"a": [')]
    return [text.partition('{"a": [')[2].partition("]")[0] for text in texts]


async def check_stored(place: str, way: str, number: str) -> None:
    (told,) = await store(place, way, number)
    if told == "INVALID":
        assert not might_be_kept(number)
    else:
        assert told not in ("NaN", "Infinity", "-Infinity")
        assert is_kept(number, json.loads(told))


@settings(SLOW, max_examples=30)
@given(st.sampled_from(sorted(PLACES)), st.sampled_from(sorted(WAYS)), NUMBERS)
def test_a_number_is_stored_as_it_is_or_refused(place: str, way: str, number: str) -> None:
    """By literals, by variables, and by variables inside literals, in each place that takes JSON."""
    anyio.run(check_stored, place, way, number)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_hard_number_is_stored_as_it_is_or_refused(place: str, way: str) -> None:
    """As INVALID, with nothing stored."""
    for number in HARD if place == "AnnotateInput.annotations" else HARD[::4]:
        await check_stored(place, way, number)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"x": float("-inf")}]])
async def test_what_is_no_number_is_never_stored(value: object) -> None:
    """Whoever calls the managers."""
    query = "mutation ($v: JSON!) { annotate(input: {id: ID, annotations: $v}) { userErrors { code } } }"
    backend = await memory_of(run(1))
    async with opened(backend) as database:
        payload = (await ask(database, query.replace("ID", json.dumps(uid(1))), v={"a": value}))["annotate"]
        assert payload["userErrors"] == [{"code": "INVALID"}]


@pytest.mark.parametrize("operations", [OPERATIONS, PLAIN], ids=["compiled", "general"])
async def test_a_filter_by_what_nobody_can_have_is_refused(operations: Engine) -> None:
    """It would match nothing; and `not` of it, all."""
    query = 'query HEAD { runs(filter: {not: {annotation: {key: "a", eq: HERE}}}) { totalCount } }'
    async with opened(await memory_of(run(1))) as database:
        for text in ("1e400", "0.1234567890123456789"):
            variable = {"v": load_exactly(f"[{text}]")}
            for head, value, given in (("", f"{{b: [{text}]}}", None), ("($v: JSON)", "$v", variable)):
                asked = query.replace("HEAD", head).replace("HERE", value)
                (error,) = (await execute(database, asked, given, operations)).errors
                assert error.extensions["code"] == "BAD_USER_INPUT"
                assert text in error.message


async def test_what_merlin_stored_is_in_nobodys_way() -> None:
    """Its NaN stands beside other keys: they can be changed, and it stays."""
    query = (
        f"""mutation {{ updateRun(input: {{id: "{uid(1)}", additionalData: {{b: 1}}}}) {{ userErrors {{ code }} }} }}"""
    )
    backend = await memory_of(run(1, additional_data='{"a": NaN}'))
    async with opened(backend) as database:
        assert (await ask(database, query))["updateRun"]["userErrors"] == []
    assert [raw["additional_data"] for raw in read_store(backend).records.values()] == ['{"a": NaN, "b": 1}']


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_number_comes_through_http(method: str) -> None:
    """In a body, and in a URL; what is answered has the same digits."""
    number = "12345678901234567890123"
    query = """query ($v: JSON!) { runs(filter: {annotation: {key: "a", eq: $v}}) { nodes { annotations } } }"""
    noted = f'mutation {{ annotate(input: {{id: "{uid(1)}", annotations: {{a: {number}}}}}) {{ node {{ id }} }} }}'
    async with (
        serving(await memory_of(run(1)), settings=Settings(no_auth=True)) as live,
        httpx.AsyncClient() as client,
    ):
        headers = {"content-type": "application/json"}
        assert "errors" not in (await client.post(live.http, json={"query": noted})).json()
        for given, found in ((number, 1), (f"{number[:-1]}4", 0)):
            variables = f'{{"v": {given}}}'
            if method == "GET":
                answer = await client.get(live.http, params={"query": query, "variables": variables})
            else:
                body = f'{{"query": {json.dumps(query)}, "variables": {variables}}}'
                answer = await client.post(live.http, content=body, headers=headers)
            assert answer.text.count(f'"annotations":{{"a":{number}}}') == found


# --- variables inside literals ------------------------------------------------------------------------------------

DECLARED: dict[str, list[Any]] = {
    "Int": [0, 7, -(2**31), 2.0],
    "Float": [1, 1.5, -0.25, 1e300],
    "String": ["", "a", "7", "\N{GRINNING FACE}", '"]}', "true"],
    "Boolean": [True, False],
    "ID": ["7", 7, uid(1), uid(1).upper(), "x"],
    "DateTime": ["2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00Z"],
    "RunStatus": ["RUNNING", "FAILED"],
    "[String!]": [["a", "b"], [], "one"],
    "RunFilter": [{}, {"status": {"in": ["FAILED"]}, "launchedAt": {"before": "2026-01-01T00:00:00Z"}}],
    "JSON": [None, {"x": [1, {"y y": None}], "": 1.5}, 10**30, "a", [[]], 1.5e-7],
}


PLAIN_VALUES: list[tuple[str, Any]] = [
    *(("1", 1), ("1.50", 1.5), ("null", None), ("true", True)),
    *(('"a"', "a"), ("RED", "RED"), ("9" * 30, int("9" * 30))),
]


@st.composite
def literals(draw: st.DrawFn) -> tuple[str, dict[str, str], dict[str, Any], Any]:
    """A literal with variables in it, their types, their values, and what graphql-js makes of it."""
    declared: dict[str, str] = {}
    values: dict[str, Any] = {}

    def variable() -> tuple[str, Any]:
        name = f"v{len(declared)}"
        type_ = declared[name] = draw(st.sampled_from(sorted(DECLARED)))
        given = draw(st.sampled_from(["absent", "null", "value", "value", "value"]))
        if given == "absent":
            return f"${name}", Undefined
        value = values[name] = None if given == "null" else draw(st.sampled_from(DECLARED[type_]))
        return f"${name}", value

    def any_of(depth: int) -> tuple[str, Any]:
        kind = draw(st.sampled_from(["variable", "variable", "plain", "list", "object"]))
        if kind == "variable":
            return variable()
        if kind == "plain" or depth > 2:
            plain: tuple[str, Any] = draw(st.sampled_from(PLAIN_VALUES))
            return plain
        parts = [any_of(depth + 1) for _ in range(draw(st.integers(0, 3)))]
        if kind == "list":
            return f"[{', '.join(text for text, _ in parts)}]", [None if it is Undefined else it for _, it in parts]
        text = ", ".join(f"k{number}: {text}" for number, (text, _) in enumerate(parts))
        return f"{{{text}}}", {f"k{number}": it for number, (_, it) in enumerate(parts) if it is not Undefined}

    text, value = any_of(0)
    return f"{{k: {text}}}", declared, values, {} if value is Undefined else {"k": value}


async def noted(text: str, declared: dict[str, str], values: dict[str, Any], expected: Any) -> None:
    head = ", ".join(f"${name}: {type_}" for name, type_ in {"id": "ID!", **declared}.items())
    noting = f"""mutation ({head}) {{
                   annotate(input: {{id: $id, annotations: {{a: {text}}}}}) {{ userErrors {{ message }} }} }}"""
    asking = f"""query ({head}) {{
                   runs(filter: {{id: {{eq: $id}}, annotation: {{key: "a", eq: {text}}}}}) {{ totalCount }} }}"""
    async with opened(await memory_of(run(1), run(2))) as database:
        variables = parse_json(json.dumps({**values, "id": uid(1)}), "body")
        assert (await ask(database, noting, **variables))["annotate"]["userErrors"] == []
        run_ = database.runs.by_id(uid(1))
        assert run_ is not None
        assert run_.annotations == {"a": expected}
        for operations in (OPERATIONS, PLAIN):
            found = await execute(database, asking, variables, operations)
            assert (found.errors, found.data) == ([], {"runs": {"totalCount": 1}})


@settings(SLOW, max_examples=30)
@given(literals())
def test_variables_stand_in_a_literal_as_the_client_gave_them(
    made: tuple[str, dict[str, str], dict[str, Any], Any],
) -> None:
    """As graphql-js does it: one that is absent is left out of an object, and is null in a list. Compiled, and not."""
    anyio.run(noted, *made)


async def test_a_default_stands_in_a_literal() -> None:
    """Where its variable is absent."""
    query = f"""mutation ($x: Int = 7, $y: JSON = {{b: [1e3]}}) {{
                  annotate(input: {{id: "{uid(1)}", annotations: {{a: [$x, $y]}}}}) {{ userErrors {{ code }} }} }}"""
    async with opened(await memory_of(run(1))) as database:
        await ask(database, query)
        assert database.by_id(uid(1)).annotations == {"a": [7, {"b": [1000.0]}]}  # type: ignore[union-attr]  # it stands
