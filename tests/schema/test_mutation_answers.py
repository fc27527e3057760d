"""What a mutation answers is written by a compiled function, and is what graphql-core would write."""

from __future__ import annotations

import re
from typing import Any

import pytest

from schema.build import make_schema
from schema.engine import Engine
from server.database.merlin_database import opened
from tests.support.asking import execute
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

COMPILED = Engine(make_schema())
PLAIN = Engine(make_schema(), compiled=False)
WORKER = logical_worker("worker")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
RUN = "run { id workspace status queues study { name runs { totalCount } } workers { name } annotations }"
REST = "userErrors { code message path } effects { action kind entityId fields }"
CREATE = f"""
mutation ($w: String!, $with: Boolean = true) {{
  made: createRun(input: {{studyName: "s", workspace: $w, queues: ["q"]}}) {{
    __typename ...more run @include(if: $with) {{ id }}
  }}
}}
fragment more on RunPayload {{ {RUN} {REST} }}
"""
UPDATE = f"mutation ($id: ID!) {{ updateRun(input: {{id: $id, status: RUNNING}}) {{ {RUN} {REST} }} }}"
ATTACH = f"mutation ($in: RunWorkersInput!) {{ attachWorkers(input: $in) {{ {RUN} {REST} }} }}"
ANNOTATE = f'mutation {{ annotate(input: {{id: "{uid(2)}", annotations: {{a: 1}}}}) {{ {REST} }} }}'
DELETE = (
    f'mutation ($try: Boolean!) {{ deleteRun(input: {{workspace: "/new", dryRun: $try}}) {{ deletedIds {REST} }} }}'
)
TWO = """
mutation {
  a: createStudy(input: {name: "x"}) { study { name } }
  b: createStudy(input: {name: "1"}) { study { name runs { totalCount } } userErrors { message } }
}
"""
STEPS: list[tuple[str, dict[str, Any], bool]] = [
    (CREATE, {"w": "/new"}, True),
    (CREATE, {"w": "/new", "with": False}, True),  # refused: there is such a run
    (CREATE, {"w": ""}, True),
    (CREATE, {}, False),
    (UPDATE, {"id": uid(2)}, True),
    (UPDATE, {"id": uid(7)}, True),
    (ATTACH, {"in": {"runId": uid(2), "workerIds": [WORKER.id]}}, True),
    (ANNOTATE, {}, True),
    (DELETE, {"try": True}, True),
    (DELETE, {"try": False}, True),
    (TWO, {}, False),
    ("mutation { __typename }", {}, False),
]
"""A document, variables, and whether its answer is compiled."""


async def answers(operations: Engine) -> list[str]:
    """Of all steps, one after the other; new ids by the order in which they come."""
    known: dict[str, str] = {}
    found = []
    records = study(1, "s", runs=(uid(2),)), run(2, study_id=uid(1)), WORKER, physical_worker(3)
    async with opened(await memory_of(*records)) as database:
        for text, variables, is_compiled in STEPS:
            before = operations.execution_counts.compiled
            result = await execute(database, text, variables, operations)
            found.append(UUID.sub(lambda id_: known.setdefault(id_[0], f"id {len(known)}"), repr(result)))
            assert operations.execution_counts.compiled - before == (is_compiled and operations is COMPILED), text
    return found


async def test_a_compiled_answer_is_that_of_graphql_core() -> None:
    """Of what was done, refused and only tried, with fragments, aliases, directives and variables."""
    assert await answers(COMPILED) == await answers(PLAIN)
