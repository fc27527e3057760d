"""Requests that keep a server busy before it executes anything: each is small enough to be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Hostile(NamedTuple):
    """A body, or the document and the variables that make one."""

    query: str = "{ __typename }"
    variables: Mapping[str, Any] | None = None
    raw: bytes | None = None

    @property
    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return json.dumps({"query": self.query, "variables": self.variables}).encode()


def _joined(made: Callable[[int], str], count: int) -> str:
    return " ".join(map(made, range(count)))


def _nested(opening: str, inner: str, closing: str, levels: int) -> str:
    return opening * levels + inner + closing * levels


def _selected(inner: str, rest: str = "") -> str:
    return f"{{ {inner} }} {rest}"


def _ids(count: int) -> list[str]:
    return [f"00000000-0000-4000-8000-{number:012d}" for number in range(count)]


def _runs_where(filter_: object) -> Hostile:
    return Hostile("query ($f: RunFilter) { runs(filter: $f) { totalCount } }", {"f": filter_})


def _fragments(count: int, made: Callable[[int], str], on: str = "Query") -> str:
    return _joined(lambda n: f"fragment f{n} on {on} {{ {made(n)} }}", count)


def _chain(levels: int, inner: Callable[[int], str], on: str) -> str:
    """Fragments of which each spreads the next one."""
    last = f"fragment f{levels} on {on} {{ {inner(levels)} }}"
    return f"{_fragments(levels, lambda n: f'{inner(n)} ...f{n + 1}', on)} {last}"


def _operations(count: int, inner: str, variables: str = "") -> str:
    return _joined(lambda n: f"query q{n}{variables} {{ {inner} }}", count)


def _twins(levels: int) -> str:
    """An object of an object, each written twice, so that all of each level are merged."""
    inner = "id" if levels == 0 else _twins(levels - 1)
    return f"parent {{ {inner} }} parent {{ {inner} }}"


DOCUMENTS: Mapping[str, str] = {
    # the rule that fields of one name can be merged
    "one field, often": _selected("__typename " * 4_900),
    "one field of a run, often": _selected("runs(first: 1) { nodes { " + "id " * 4_900 + "} }"),
    "one field with arguments, often": _selected("database { " + "a: runs " * 180 + "}"),
    "one list with a filter, often": _selected(
        "runs(first: 1) { nodes { " + 'workers(filter: {name: {eq: "a"}}) { id } ' * 300 + "} }"
    ),
    "fields that differ in a value": _selected(
        "run(id: 1) { " + _joined(lambda n: f"annotations(key: {n})", 600) + " }"
    ),
    "inline fragments with one field": _selected("... { __typename } " * 1_200),
    "inline fragments with one object": _selected("... { database { runs } } " * 700),
    "inline fragments in inline fragments": _selected(_nested("... { __typename ", "__typename", "}", 150) * 8),
    "fragments side by side": _selected(_joined(lambda n: f"...f{n}", 600), _fragments(600, lambda _: "__typename")),
    "fragments side by side, of one object": _selected(
        _joined(lambda n: f"...f{n}", 350), _fragments(350, lambda _: "database { runs }")
    ),
    "fragments of a run side by side": _selected(
        "run(id: 1) { " + _joined(lambda n: f"...f{n}", 350) + " }",
        _fragments(350, lambda _: "id workspace status", "Run"),
    ),
    "fragments that all spread all": _selected(
        "...f0", _fragments(55, lambda n: _joined(lambda m: f"...f{m}", 40) if n < 50 else "__typename")
    ),
    "fragments that all spread all others": _selected(
        "...f0",
        _fragments(60, lambda n: _joined(lambda m: f"...f{m}", 60)[: 8 * (59 - n)] + " __typename", "Query"),
    ),
    "one fragment, often": _selected("...f0 " * 2_300, "fragment f0 on Query { __typename }"),
    "a chain of fragments twice": _selected(
        "...f0 ...f0 database { runs }", _chain(150, lambda _: "__typename", "Query")
    ),
    "two chains of fragments": _selected(
        "...f0 ...g0",
        _chain(180, lambda _: "__typename", "Query")
        + _chain(180, lambda _: "__typename", "Query").replace(" f", " g").replace("...f", "...g"),
    ),
    "objects in objects, twice at each level": "{ run(id: 1) { " + _twins(9) + " } }",
    # the rules that follow fragments for each operation
    "operations that spread all fragments": _operations(300, "...f0 ...f1 ...f2")
    + _fragments(250, lambda n: f"...f{(n + 1) % 250} __typename"),
    "operations that reach a chain": _operations(400, "...f0") + _chain(190, lambda _: "__typename", "Query"),
    "operations with variables in fragments": _operations(130, "...f0", " ($a: ID! $b: ID!)")
    + _chain(100, lambda n: f"a{n}: run(id: $a) {{ id }} b{n}: run(id: $b) {{ id }}", "Query"),
    "variables that nobody uses": "query (" + _joined(lambda n: f"$v{n}: Int", 1_200) + ") { __typename }",
    "variables that nobody defines": _selected(_joined(lambda n: f"a: run(id: $v{n}) {{ id }}", 400)),
    "many operations": _joined(lambda n: f"query q{n} {{ __typename }}", 800),
    "50 operations": _joined(
        lambda n: f"query q{n} {{ runs {{ nodes {{ {'id status workspace ' * 8} study {{ id name }} }} }} }}", 49
    ),
    "operations without a name": "{ __typename } " * 1_200,
    # suggestions
    "a long unknown field": _selected("a" * 99_000),
    "long unknown fields": _selected(_joined(lambda n: f"{chr(97 + n % 26) * 900}{n}", 49)),
    "unknown fields": _selected(_joined(lambda n: f"runCountz{n}", 49)),
    "a long unknown type": "query ($a: " + "a" * 99_000 + ") { __typename }",
    "long unknown types": "query (" + _joined(lambda n: f"$a{n}: {'Run' * 20}{n}", 1_000) + ") { __typename }",
    "unknown types in fragments": _selected("__typename", _fragments(600, lambda _: "id", "Runn")),
    "unknown types in inline fragments": _selected("... on Runn { id } " * 600),
    "unknown arguments": _selected("runs(" + _joined(lambda n: f"firs{n}: 1", 1_200) + ") { totalCount }"),
    "unknown enum values": _selected(
        "runs(filter: {status: {in: [" + _joined(lambda n: f"RUNNIN{n}", 4_000) + "]}}) { totalCount }"
    ),
    "unknown input fields": _selected(
        "runs(filter: {" + _joined(lambda n: f"statu{n}: 1", 1_200) + "}) { totalCount }"
    ),
    "unknown directives": _selected("__typename " + _joined(lambda n: f"@skipp{n}", 99)),
    # values
    "a long list of values": _selected("runs(filter: {id: {in: [" + '"a" ' * 4_900 + "]}}) { totalCount }"),
    "a long list of wrong values": _selected("runs(filter: {id: {in: [" + "{} " * 1_600 + "]}}) { totalCount }"),
    "an object of many keys": _selected(
        'runs(filter: {annotation: {key: "a", eq: {' + _joined(lambda n: f"k{n}: 1", 1_600) + "}}}) { totalCount }"
    ),
    "an object of one key, often": _selected(
        'runs(filter: {annotation: {key: "a", eq: {' + "k: 1 " * 1_600 + "}}}) { totalCount }"
    ),
    "filters in a list": _selected("runs(filter: {or: [" + "{id: {eq: 1}} " * 480 + "]}) { totalCount }"),
    "empty filters in a list": _selected("runs(filter: {or: [" + "{} " * 2_400 + "]}) { totalCount }"),
    "a deep filter": _selected("runs(filter: " + _nested("{not: ", "{}", "}", 90) + ") { totalCount }"),
    "a deep list": _selected("runs(filter: {id: {in: " + _nested("[", "", "]", 150) + "}}) { totalCount }"),
    "a wide deep filter": _selected(
        "runs(filter: " + _nested("{and: [{id: {isNull: true}} ", "{}", "]}", 60) + ") { totalCount }"
    ),
    "a long number": _selected("runs(first: " + "1" * 99_000 + ") { totalCount }"),
    "a long fraction": _selected('runs(filter: {annotation: {key: "a", eq: 0.' + "1" * 99_000 + "}}) { totalCount }"),
    "a long text": _selected('runs(filter: {id: {eq: "' + "a" * 99_000 + '"}}) { totalCount }'),
    "a long block text": _selected('runs(filter: {id: {eq: """' + "a\n" * 49_000 + '"""}}) { totalCount }'),
    "a text of escapes": _selected('runs(filter: {id: {eq: "' + "\\u0041" * 16_000 + '"}}) { totalCount }'),
    "types of types": "query ($a: " + _nested("[", "Int", "]", 190) + ") { __typename }",
    "a long default": "query ($a: [ID!] = [" + "1 " * 4_900 + "]) { runs(filter: {id: {in: $a}}) { totalCount } }",
    # errors
    "an error at the end of many lines": _selected("__typename" + "\n" * 99_000 + "nope nope1 nope2 nope3 nope4"),
    "a conflict at the end of many lines": _selected("database { " + "\n" * 98_000 + "a: runs a: studies " * 20 + "} "),
    "a syntax error at the end of many lines": _selected("__typename" + "\n" * 99_000 + "!!"),
    "a comment of many lines": _selected("__typename" + "#\n" * 49_000),
    "many commas": _selected("__typename" + "," * 99_000),
    "empty selections": _selected("database { } " * 1_200),
    "directives": _selected("__typename " + "@skip(if: false) " * 98),
    "definitions of types": _joined(lambda n: f"type T{n} {{ a: Int }}", 600) + "{ __typename }",
    # introspection
    "introspection, wide": _selected(
        "__schema { " + _joined(lambda n: f"a{n}: types {{ fields {{ args {{ name }} }} }}", 150) + " }"
    ),
    "introspection, deep": _selected("__schema { types { " + _nested("ofType { ", "name", "}", 20) * 60 + " } }"),
    "introspection, deeper": _selected("__schema { types { " + _nested("ofType { ", "name", "}", 150) * 8 + " } }"),
    "introspection of fields of fields": _selected(
        "__schema { types { " + _nested("fields { type { ", "name", "} }", 100) + " } }"
    ),
    # what is deferred
    "deferred fragments": _selected("... @defer { __typename } " * 95),
    "deferred fragments in each other": _selected(_nested("... @defer { __typename ", "__typename", "}", 95)),
    "streams of one key": _selected("runs { " + "nodes @stream { id } " * 90 + "}"),
    "labels": _selected(_joined(lambda n: f'... @defer(label: "{n % 2}") {{ __typename }}', 95)),
    "a long label": _selected('... @defer(label: "' + "a" * 99_000 + '") { __typename }'),
    "a chain of deferred fragments": _selected("...f0 @defer", _chain(90, lambda _: "__typename", "Query")),
    # as many fields as the compiler takes
    "many fields": _selected(
        "runs(first: 1) { nodes { "
        + _joined(lambda n: f"a{n}: id b{n}: status c{n}: workspace", 66)
        + " "
        + "id status workspace queues " * 700
        + " } }"
    ),
    "many objects": _selected("runs(first: 1) { nodes { " + "study { id name runs { totalCount } } " * 400 + "} }"),
    "many lists": _selected(
        _joined(lambda n: f"a{n}: runs(first: 1, filter: {{id: {{eq: 1}}}}) {{ nodes {{ study {{ id }} }} }}", 49)
    ),
    "operations of many fields": _joined(
        lambda n: f"query q{n} {{ runs {{ nodes {{ id status workspace study {{ id name }} }} }} }}", 250
    ),
}

VARIABLES: Mapping[str, Hostile] = {
    "100,000 values of `in`": _runs_where({"workspace": {"in": [str(n) for n in range(100_000)]}}),
    "25,000 ids of `in`": _runs_where({"id": {"in": _ids(25_000)}}),
    "25,000 ids of `notIn`": _runs_where({"id": {"notIn": _ids(25_000)}}),
    "100,000 numbers as ids": _runs_where({"id": {"in": list(range(100_000))}}),
    "100,000 values of `in`, whatever the case": _runs_where(
        {"workspace": {"ignoreCase": True, "in": [f"A{n}" for n in range(100_000)]}}
    ),
    "100,000 queues": _runs_where({"queues": {"containsAny": [f"q{n}" for n in range(100_000)]}}),
    "100,000 queues, all of them": _runs_where({"queues": {"containsAll": [f"q{n}" for n in range(100_000)]}}),
    "100,000 statuses": _runs_where({"status": {"in": ["RUNNING"] * 90_000}}),
    "100,000 wrong statuses": _runs_where({"status": {"in": ["RUNNIN"] * 90_000}}),
    "300,000 wrong values": _runs_where({"workspace": {"in": [1] * 300_000}}),
    "40,000 wrong times": _runs_where({"launchedAt": {"after": ["2026"] * 90_000}}),
    "filters in a list": _runs_where({"or": [{"id": {"eq": "1"}}] * 50_000}),
    "empty filters in a list": _runs_where({"or": [{}] * 250_000}),
    "wrong filters in a list": _runs_where({"or": [{"idd": 1}] * 90_000}),
    "deep filters": _runs_where(json.loads(_nested('{"not": ', "{}", "}", 190))),
    "deeper filters": _runs_where(json.loads(_nested('{"not": ', "{}", "}", 900))),
    "unknown keys": _runs_where({f"key{n}": 1 for n in range(60_000)}),
    "a long unknown key": _runs_where({"a" * 1_000_000: 1}),
    "a long value": _runs_where({"workspace": {"contains": "a" * 1_000_000}}),
    "a long value, whatever the case": _runs_where({"workspace": {"ignoreCase": True, "contains": "ß" * 170_000}}),
    "a long id": _runs_where({"id": {"eq": "a" * 1_000_000}}),
    "a long time": _runs_where({"launchedAt": {"after": "2" * 1_000_000}}),
    "a long status": _runs_where({"status": {"eq": "R" * 1_000_000}}),
    "a large annotation": _runs_where({"annotation": {"key": "a", "eq": list(range(140_000))}}),
    "an annotation of many keys": _runs_where({"annotation": {"key": "a", "eq": {f"k{n}": n for n in range(60_000)}}}),
    "an annotation of exact numbers": _runs_where({"annotation": {"key": "a", "eq": [1e300] + [0.5] * 200_000}}),
    "a deep annotation": _runs_where({"annotation": {"key": "a", "eq": json.loads(_nested("[", "1", "]", 900))}}),
    "many variables that nobody defines": Hostile(variables={f"v{n}": n for n in range(60_000)}),
    "a large variable that nobody defines": Hostile(variables={"v": list(range(140_000))}),
    "100 lists of 5,000 ids": Hostile(
        "query ($ids: [ID!]) { "
        + _joined(lambda n: f"a{n}: runs(filter: {{id: {{in: $ids}}}}) {{ totalCount }}", 49)
        + " }",
        {"ids": _ids(25_000)},
    ),
    "4,900 wrong values": _runs_where({"workspace": {"in": [1] * 4_900}}),
    "4,900 queues": _runs_where({"queues": {"containsAny": [f"q{n}" for n in range(4_900)]}}),
    "4,900 unknown keys": _runs_where({f"key{n}": 1 for n in range(4_900)}),
    "4,900 empty filters in a list": _runs_where({"or": [{}] * 4_900}),
    "4,900 wrong filters in a list": _runs_where({"or": [{"idd": 1}] * 2_450}),
    "49 lists of 4,900 ids": Hostile(
        "query ($ids: [ID!]) { "
        + _joined(lambda n: f"a{n}: runs(filter: {{id: {{in: $ids}}}}) {{ totalCount }}", 49)
        + " }",
        {"ids": _ids(4_900)},
    ),
    "a long cursor": Hostile("query ($c: String) { runs(after: $c) { totalCount } }", {"c": "a" * 1_000_000}),
    "a long cursor, often": Hostile(
        "query ($c: String) { " + _joined(lambda n: f"a{n}: runs(after: $c) {{ totalCount }}", 49) + " }",
        {"c": "a" * 1_000_000},
    ),
    "25,000 ids of nodes": Hostile("query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": _ids(25_000)}),
    "a long name in an argument": Hostile("query ($n: String) { study(name: $n) { id } }", {"n": "a" * 1_000_000}),
}

BODIES: Mapping[str, bytes] = {
    "500,000 empty lists": b'{"query": "{ __typename }", "variables": {"a": [' + b"[]," * 340_000 + b"1]}}",
    "500,000 numbers": b'{"query": "{ __typename }", "variables": {"a": [' + b"1," * 500_000 + b"1]}}",
    "250,000 fractions": b'{"query": "{ __typename }", "variables": {"a": [' + b"0.5," * 250_000 + b"1]}}",
    "fractions of many digits": b'{"query": "{ __typename }", "variables": {"a": ['
    + b"0.12345678901234567," * 52_000
    + b"1]}}",
    "fractions of 800 digits": b'{"query": "{ __typename }", "variables": {"a": ['
    + (b"0." + b"1" * 800 + b",") * 1_300
    + b"1]}}",
    "a number of 1,000,000 digits": b'{"query": "{ __typename }", "variables": {"a": ' + b"1" * 1_000_000 + b"}}",
    "a fraction of 1,000,000 digits": b'{"query": "{ __typename }", "variables": {"a": 0.' + b"1" * 1_000_000 + b"}}",
    "numbers of 4,000 digits": b'{"query": "{ __typename }", "variables": {"a": ['
    + (b"1" * 4_000 + b",") * 260
    + b"1]}}",
    "large exponents": b'{"query": "{ __typename }", "variables": {"a": [' + b"1e999," * 170_000 + b"1]}}",
    "empty objects": b'{"query": "{ __typename }", "variables": {"a": [' + b"{}," * 340_000 + b"1]}}",
    "many keys": b'{"query": "{ __typename }", "variables": {'
    + b",".join(b'"%d": 0' % n for n in range(90_000))
    + b"}}",
    "many keys and a fraction": b'{"query": "{ __typename }", "variables": {"a": 0.12345678901234567, '
    + b",".join(b'"%d": 0' % n for n in range(90_000))
    + b"}}",
    "deep lists": b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 500_000 + b"]" * 500_000 + b"}}",
    "deep lists and a fraction": b'{"query": "{ __typename }", "variables": {"b": 0.12345678901234567, "a": '
    + b"[" * 900
    + b"]" * 900
    + b"}}",
    "a text of escapes": b'{"query": "{ __typename }", "variables": {"a": "' + b"\\u0041" * 140_000 + b'"}}',
    "halves of surrogate pairs": b'{"query": "{ __typename }", "variables": {"a": "' + b"\\ud800" * 170_000 + b'"}}',
    "halves of surrogate pairs and a fraction": b'{"query": "{ __typename }", "variables": {"b": 0.12345678901234567, '
    b'"a": "' + b"\\ud83d\\ude00" * 85_000 + b'"}}',
    "a long query": b'{"query": "' + b"a" * 1_000_000 + b'"}',
    "a query of another alphabet": b'{"query": "{ __typename } #' + "é".encode() * 500_000 + b'"}',
    "a long hash": b'{"documentId": "' + b"a" * 1_000_000 + b'"}',
    "a long name": b'{"query": "query a { __typename }", "operationName": "' + b"a" * 1_000_000 + b'"}',
    "no JSON": b"[" * 1_000_000,
    "no JSON at the end": b'{"query": "{ __typename }", "variables": {"a": [' + b"1," * 500_000,
}

REQUESTS: Mapping[str, Hostile] = {
    **{f"document: {name}": Hostile(text) for name, text in DOCUMENTS.items()},
    **{f"variables: {name}": given for name, given in VARIABLES.items()},
    **{f"body: {name}": Hostile(raw=raw) for name, raw in BODIES.items()},
}
