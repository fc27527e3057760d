"""What is asked, of a database of how many runs, and of whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

RUN_FIELDS = "id workspace status queues study { id name } workers { id name queues }"
"""17 fields of each run of the sample data, which has three workers."""
RUNS = "{ runs(first: %d) { nodes { " + RUN_FIELDS + " } } }"
FILTERED = """
query Failed($filter: RunFilter) {
  runs(first: 50, filter: $filter) {
    totalCount
    nodes { id workspace status study { name } }
    pageInfo { hasNextPage }
  }
}
"""
FAILED_ICF = {"filter": {"status": {"eq": "FAILED"}, "study": {"name": {"startsWith": "icf_"}}}}
CREATE_RUN = """
mutation Create($input: CreateRunInput!) {
  createRun(input: $input) { run { workspace status queues study { name } } userErrors { message } }
}
"""
NUMBER, SHARE = "NUMBER", "SHARE"
"""Words in the body of a writing request that each request has another number for; SHARE has a hundred of them."""
NEW_RUN = {
    "input": {
        "workspace": f"created/run_{NUMBER}_20260101-000000",  # relative: Merlin makes it, below its own directory
        "studyName": f"created_{SHARE}",
        "queues": ["[merlin]_created"],
    }
}

WRITERS = ("main", "a", "b", "c", "d")
READERS = (*WRITERS, "g", "m")


@dataclass(frozen=True)
class Query:
    name: str
    text: str
    meaning: str
    runs: int
    """How many the database has."""
    contestants: tuple[str, ...] = READERS
    variables: Mapping[str, Any] = field(default_factory=dict)
    cacheable: bool = False
    """Whether it may be answered from a cache; all others forbid that."""
    writes: bool = False
    """Whether every request is another, and the database another one after it."""

    @property
    def body(self) -> bytes:
        """Of the POST request, with NUMBER and SHARE where it writes."""
        return orjson.dumps({"query": self.text} | ({"variables": self.variables} if self.variables else {}))

    @property
    def headers(self) -> dict[str, str]:
        cache = {} if self.cacheable else {"Cache-Control": "no-cache"}
        return {"Content-Type": "application/json", **cache}

    def numbered(self, number: int) -> bytes:
        """One request's body."""
        if not self.writes:
            return self.body
        return self.body.replace(NUMBER.encode(), b"%d" % number).replace(SHARE.encode(), b"%d" % (number % 100))


QUERIES = {
    query.name: query
    for query in (
        Query("runs-200", RUNS % 200, "200 runs with study and workers, all there are", 200),
        Query("runs-20", RUNS % 20, "20 runs with study and workers, all there are", 20),
        Query("runs-1", RUNS % 1, "the only run with study and workers", 1),
        Query("typename", "{ __typename }", "nothing of the database", 200),
        Query("repeated", RUNS % 200, "200 runs again, where a cache may answer", 200, ("main", "d"), cacheable=True),
        Query(
            "filtered",
            FILTERED,
            "a page of 50 and the count, of the failed runs of some studies among 100,000",
            100_000,
            ("main", "a", "c", "d"),
            FAILED_ICF,
        ),
        Query(
            "create-run", CREATE_RUN, "a new run, each with a workspace of its own", 200, WRITERS, NEW_RUN, writes=True
        ),
    )
}
