"""`make newest` knows the tests of each client, and says what broke."""

from __future__ import annotations

import re
from itertools import chain

import pytest

from tests.support.newest import NODE, ON_PURPOSE, PYTHON, ROOT, Row, dependencies, places, table, verdict


def test_each_client_has_its_tests() -> None:
    """Each package that some package.json names; and each test is there."""
    assert ROOT / ON_PURPOSE not in places()
    assert set(chain.from_iterable(dependencies(place) for place in places())) == NODE.keys()
    for named in {*chain.from_iterable(NODE.values()), *chain.from_iterable(PYTHON.values())}:
        path, _, test = named.partition("::")
        assert re.search(rf"^(async )?def {test}", (ROOT / path).read_text(), re.MULTILINE), named


def report(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


PASSED, SKIPPED = '<testcase name="a"/>', '<testcase name="b"><skipped/></testcase>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (report(PASSED, SKIPPED), "passed"),
        (report(PASSED, '<testcase name="c"><failure/></testcase>'), "failed: c"),
        (report('<testcase name="d"><error/></testcase>'), "failed: d"),
        (report(SKIPPED), "not tried: no test of it ran"),
        (report(), "not tried: no test of it ran"),
        ("", "not tried: no test of it ran"),
    ],
)
def test_a_client_passes_by_the_tests_that_ran(text: str, expected: str) -> None:
    """Tests that were skipped prove nothing."""
    assert verdict(text) == expected


def test_the_table_has_a_line_for_each_client() -> None:
    """Its range, the version that was tried, and what came of it."""
    rows = [Row("graphql-ws", "^6.0.0", "7.1.0", "failed: test_x"), Row("ws", "^8.18.0", "8.19.0", "passed")]
    assert table(rows) == (
        "client      allowed  tried   result\n"
        "graphql-ws  ^6.0.0   7.1.0   failed: test_x\n"
        "ws          ^8.18.0  8.19.0  passed\n"
    )
    assert [row.has_failed for row in rows] == [True, False]
