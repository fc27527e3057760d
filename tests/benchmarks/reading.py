"""Measures what a request costs before it is executed: `python -m tests.benchmarks.reading [--only TEXT] [--strict]`.

Each request of `tests.support.hostile` is read once, in this process, on a database of two records, by an engine that
has not seen it. Milliseconds of processor time of each stage, the slowest request first: parsing its JSON, reading its
document, the key for the cache, its variables with all that is executed without waiting, and the rest of the execution.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.limits import DEFAULTS, STRICT
from schema.operation import OperationError
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase, opened
from server.errors import RequestError
from server.protocols.response_cache import cache_key_of
from server.requests import parse_json, parse_request
from tests.support.hostile import REQUESTS, Hostile
from tests.support.records import memory_of, run, study

Stages = dict[str, float]


@contextmanager
def timed(stages: Stages, name: str) -> Iterator[None]:
    began = time.thread_time()
    try:
        yield
    finally:
        stages[name] = round((time.thread_time() - began) * 1000, 1)


async def read(engine: Engine, database: MerlinDatabase, hostile: Hostile, stages: Stages) -> str:
    """What came of it."""
    context = Context(database, "1", Role.READ)
    body = hostile.body
    try:
        with timed(stages, "JSON"):
            request = parse_request(parse_json(body, "body"))
        with timed(stages, "document"):
            operation = engine.parse(request.query or "", request.operation_name)
        with timed(stages, "key"):
            cache_key_of(operation, request.variables, Role.READ)
        with timed(stages, "execution"):
            answer = await engine.query(operation, request.variables, context)
    except OperationError as error:
        return str(error.errors[0].get("extensions", {}).get("limit", error.code))
    except RequestError as error:
        return error.code
    return "answered with errors" if answer.errors else "answered"


async def measure(only: str, *, strict: bool) -> None:
    measured = []
    async with opened(await memory_of(study(1), run(2)), time_zone=UTC) as database:
        engine = Engine(make_schema(), STRICT if strict else DEFAULTS)
        for name, hostile in REQUESTS.items():
            if only in name:
                gc.collect()
                stages: Stages = {}
                outcome = await read(engine, database, hostile, stages)
                measured.append((round(sum(stages.values()), 1), name, outcome, stages))
    for total, name, outcome, stages in sorted(measured, key=lambda found: found[0], reverse=True):
        print(json.dumps({"request": name, "ms": total, "outcome": outcome, **stages}, ensure_ascii=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="requests whose names contain this")
    parser.add_argument("--strict", action="store_true", help="with the limits of production")
    options = parser.parse_args()
    asyncio.run(measure(options.only, strict=options.strict))


if __name__ == "__main__":
    main()
