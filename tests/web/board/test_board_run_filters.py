"""What the board asks the API for, by the address of the page, and which runs it calls new: without a browser."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, parse
from graphql.execution.values import get_variable_values

from schema.build import make_schema
from tests.support.javascript import NODE

ROOT = Path(__file__).parents[3]
BOARD = ROOT / "web" / "board"
ESBUILD = BOARD / "node_modules" / "esbuild" / "bin" / "esbuild"

pytestmark = pytest.mark.skipif(
    NODE is None or not ESBUILD.exists(), reason="npm has not installed the board's packages"
)

VIEWS = """
import { viewOf } from "./src/pages/runs/filter.ts";
console.log(JSON.stringify(GIVEN.map((query) => viewOf(new URLSearchParams(query)))));
"""
NEWS = """
import { newIn } from "./src/pages/runs/news.ts";
console.log(JSON.stringify(GIVEN.map(([head, known, isWhole]) => newIn([...head], new Set(known), isWhole))));
"""

FILTERS: dict[str, object] = {
    "": None,
    "text=a%20b": {"workspace": {"contains": "a b", "ignoreCase": True}},
    "study=sweep": {"study": {"name": {"eq": "sweep"}}},
    "status=FAILED,RUNNING": {"status": {"in": ["FAILED", "RUNNING"]}},
    "queue=%5Bmerlin%5D_q": {"queues": {"containsAny": ["[merlin]_q"]}},
    "worker=hydra": {"worker": {"name": {"eq": "hydra"}}},
    "launchedAfter=2026-01-31T08:00:00%2B01:00": {"launchedAt": {"after": "2026-01-31T07:00:00.000Z"}},
    "launchedBefore=2026-01-31T08:00:00Z": {"launchedAt": {"before": "2026-01-31T08:00:00.000Z"}},
    "finishedAfter=2026-01-31T08:00:00Z": {"finishedAt": {"after": "2026-01-31T08:00:00.000Z"}},
    "finished=no": {"isFinished": False},
    "failed=yes": {"hasFailed": True},
    "stuck=yes": {"isStuck": True},
    "annotation=owner": {"annotation": {"key": "owner", "exists": True}},
    "annotation=owner=a=b": {"annotation": {"key": "owner", "eq": "a=b"}},
    "annotation=grade=7": {
        "or": [{"annotation": {"key": "grade", "eq": "7"}}, {"annotation": {"key": "grade", "eq": 7}}]
    },
    "stuck=yes&study=a": {"and": [{"isStuck": True}, {"study": {"name": {"eq": "a"}}}]},
}
"""What each query of the address means; null: all runs."""


def printed(program: str, given: object) -> Any:
    """The value that a program prints which imports modules of the board."""
    source = program.replace("GIVEN", json.dumps(given))
    options = ("--bundle", "--format=esm", "--platform=node", "--loader=ts", "--log-level=error")
    bundle = subprocess.run([ESBUILD, *options], cwd=BOARD, input=source, text=True, check=True, capture_output=True)
    assert NODE is not None
    command = [NODE, "--input-type=module", "-"]
    return json.loads(subprocess.run(command, input=bundle.stdout, text=True, check=True, capture_output=True).stdout)


def test_each_parameter_is_a_filter_that_the_api_takes() -> None:
    """One of them as it is, several under `and`; nothing is said of what is right."""
    schema = make_schema()._schema
    (operation,) = parse((ROOT / "queries" / "board" / "BoardRuns.graphql").read_text()).definitions
    assert isinstance(operation, OperationDefinitionNode)
    for (query, expected), view in zip(FILTERS.items(), printed(VIEWS, list(FILTERS)), strict=True):
        assert view == {"filter": expected, "order": None, "problems": []}, query
        variables = {"first": 1, "filter": view["filter"]}
        values = get_variable_values(schema, operation.variable_definitions or (), variables)
        assert not isinstance(values, list), query  # of errors


def test_an_order_has_the_direction_that_one_means() -> None:
    """The latest and the longest first, unless the address says otherwise; null is the order of the API itself."""
    asked = ["", "order=LAUNCHED_AT", "order=FINISHED_AT", "order=WORKSPACE", "order=DURATION&direction=ASC"]
    assert [view["order"] for view in printed(VIEWS, asked)] == [
        None,
        None,
        {"field": "FINISHED_AT", "direction": "DESC"},
        {"field": "WORKSPACE", "direction": "ASC"},
        {"field": "DURATION", "direction": "ASC"},
    ]


def test_what_an_address_can_not_mean_is_left_out_and_said() -> None:
    """The rest of it counts."""
    query = "status=FAILED,GONE&stuck=maybe&launchedAfter=noon&colour=red&order=AGE&direction=UP&text="
    (view,) = printed(VIEWS, [query])
    assert view["filter"] == {"status": {"in": ["FAILED"]}}
    assert view["order"] is None
    told = ["GONE", "maybe", "noon", "colour", "AGE"]
    assert [word in problem for word, problem in zip(told, view["problems"], strict=True)] == [True] * 5
    (view,) = printed(VIEWS, ["order=STATUS&direction=UP"])
    assert view["order"] == {"field": "STATUS", "direction": "ASC"}
    assert len(view["problems"]) == 1


def test_new_runs_are_those_that_come_before_known_ones() -> None:
    """A run that comes up as others leave is none, unless the whole list is known."""
    assert printed(
        NEWS,
        [
            ["abc", "abcde", False],
            ["xyabc", "abcde", False],
            ["axb", "abcde", False],
            ["dex", "abcde", False],
            ["dex", "abcde", True],
            ["xyz", "abcde", False],
            ["xyz", "", True],
        ],
    ) == [0, 2, 1, 0, 1, 3, 3]
