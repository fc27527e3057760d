"""The texts of a document as clients send it, for each printer that they have."""

from __future__ import annotations

import pytest
from graphql import parse

from server.contract.client_texts import text_of_apollo, texts_sent

LONG = (
    '{a(by: {name: "a text with { braces } # and \\"quotes\\"", more: [{}, {x: 1}]}, second: "another long text") {b}}'
)
"""One line of more than 80 characters, which has objects, an empty one, too."""


def test_a_short_document_has_one_text() -> None:
    """`__typename` comes last, in fields and fragments, and not in the operation itself."""
    document = parse("query Q{a{b ...F}} fragment F on T{c{d}}")
    text = "query Q {\n  a {\n    b\n    ...F\n    __typename\n  }\n}"
    fragment = "fragment F on T {\n  c {\n    d\n    __typename\n  }\n  __typename\n}"
    assert texts_sent(document) == [f"{text}\n\n{fragment}", f"{text}\n{fragment}"]
    assert text_of_apollo(document) == f"{text}\n\n{fragment}"


def test_objects_and_long_lines_have_a_text_for_each_printer() -> None:
    """graphql-js 16 writes `{x: 1}`, 17 `{ x: 1 }`, and urql begins a line before each text."""
    of_16, of_17, of_urql = texts_sent(parse(LONG))
    assert "\n    by: {name: " in of_16
    assert "more: [{}, {x: 1}]" in of_16
    assert "{ x: 1 }" in of_17
    assert "{name: \n" in of_urql


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("query($a:Int=1){b}", "query ($a: Int = 1) {\n  b\n}"),
        ("query Q@c{b}", "query Q @c {\n  b\n}"),
        ("{b}", "{\n  b\n}"),
        ("mutation M($a:[T!]!){b}", "mutation M($a: [T!]!) {\n  b\n}"),
    ],
)
def test_heads_are_printed_as_graphql_js_prints_them(given: str, expected: str) -> None:
    """With and without a name, variables and directives."""
    assert text_of_apollo(parse(given)) == expected


def test_an_aliased_typename_is_enough_for_apollo_and_not_for_urql() -> None:
    """So that they send different texts."""
    apollo, urql = texts_sent(parse("{a{kind:__typename}}"))
    assert apollo == "{\n  a {\n    kind: __typename\n  }\n}"
    assert urql == "{\n  a {\n    kind: __typename\n    __typename\n  }\n}"


def test_fragments_have_the_order_of_apollos_manifests() -> None:
    """The operation first, then the fragments by name; Apollo itself sends them as they were written."""
    document = parse("fragment B on T {b} fragment A on T {a} query Q {...A ...B}")
    assert text_of_apollo(document).index("query Q") == 0
    assert text_of_apollo(document).index("fragment A") < text_of_apollo(document).index("fragment B")
    assert any(text.startswith("fragment B") for text in texts_sent(document))
