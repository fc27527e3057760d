"""Measures what the compiler saves: `python -m tests.benchmarks.compiling [--runs 200] [--rounds 300]`.

One query in this process, from the same read model to the same bytes, in turns: by graphql-core as strawberry sets it
up, by the compiled function, and by two functions written by hand for this one query, which check nothing. One reads
the entities, as resolvers do; the other reads the records behind them, and makes nothing that it does not answer.
CPU time; medians, and the compiled function's ratios to all others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from graphql import ExecutionResult, Executor, OperationDefinitionNode, execute_root_selection_set, parse

from schema.build import make_schema
from schema.compiler.accessors import PlainInfo
from schema.compiler.arguments import NO_VARIABLES
from schema.compiler.compiler import Compiled, compile_operation
from schema.compiler.errors import NotCompilableError
from schema.context import Context
from schema.encoding import encode_json
from schema.entity_pieces import ENTITY_PIECES
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import LogicalWorkerModel, Model, RunModel, StudyModel
from tests.support.records import logical_worker, memory_of, run, study

SCHEMA = make_schema()
QUERY = """query Runs { runs(first: %d) { nodes {
    id workspace status queues study { id name } workers { id name queues }
} } }"""
QUERIES = sorted((Path(__file__).parents[2] / "queries").glob("*.graphql"))


def records(runs: int) -> list[Model]:
    """Of 20 studies, and of three workers for each run."""
    workers = [logical_worker(f"worker_{number}", (f"[merlin]_q{number}",)) for number in range(12)]
    studies: list[StudyModel] = [study(number) for number in range(20)]
    made: list[RunModel] = []
    for number in range(runs):
        own: list[LogicalWorkerModel] = [workers[(number + step) % len(workers)] for step in range(3)]
        made.append(
            run(
                1000 + number,
                f"/runs/study_{number % 20}_20260101-{number % 24:02}{number % 60:02}00",
                study_id=studies[number % 20].id,
                workers=tuple(worker.id for worker in own),
                queues=tuple(worker.queues[0] for worker in own),
            )
        )
    return [*workers, *studies, *made]


def from_entities(database: MerlinDatabase, first: int) -> bytes:
    nodes = []
    for entity in islice(database.runs.all(), first):
        owner = entity.study
        nodes.append(
            {
                "id": entity.id,
                "workspace": entity.workspace,
                "status": entity.status,
                "queues": entity.queues,
                "study": None if owner is None else {"id": owner.id, "name": owner.name},
                "workers": [
                    {"id": worker.id, "name": worker.name, "queues": worker.queues} for worker in entity.workers
                ],
            }
        )
    return orjson.dumps({"runs": {"nodes": nodes}})


def from_records(database: MerlinDatabase, first: int) -> bytes:
    model = database.read_model
    runs, studies, workers = model.runs.records, model.studies.records, model.logical_workers.records
    studies_of, workers_of = model.study_runs.owners_of, model.worker_runs.owners_of
    nodes = []
    for _, id_ in model.runs.order[:first]:
        record = runs[id_]
        owners = studies_of(id_)
        its_study = None
        if owners:
            owner = studies[owners[0]]
            its_study = {"id": owner.id, "name": owner.name}
        its_workers = []
        for worker_id in workers_of(id_):
            worker = workers[worker_id]
            its_workers.append({"id": worker.id, "name": worker.name, "queues": worker.queues})
        nodes.append(
            {
                "id": record.id,
                "workspace": record.workspace,
                "status": record.run_status,
                "queues": record.queues,
                "study": its_study,
                "workers": its_workers,
            }
        )
    return orjson.dumps({"runs": {"nodes": nodes}})


def measured(ways: dict[str, Callable[[], bytes]], rounds: int) -> dict[str, float]:
    """Medians in milliseconds of CPU time, of all ways in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time_ns()
            way()
            times[name].append((time.process_time_ns() - began) / 1e6)
    return {name: round(statistics.median(found), 4) for name, found in times.items()}


def compiled(text: str) -> tuple[Compiled, float]:
    """And how many milliseconds it took. Raises `NotCompilableError`."""
    document = parse(text)
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    times = []
    for _ in range(30):
        began = time.process_time_ns()
        found = compile_operation(SCHEMA, document, operation, pieces=ENTITY_PIECES)
        times.append((time.process_time_ns() - began) / 1e6)
    return found, round(statistics.median(times), 2)


async def measure(runs: int, rounds: int) -> None:
    text = QUERY % runs
    document = parse(text)
    ours, compiling = compiled(text)
    async with opened(await memory_of(*records(runs)), time_zone=UTC) as database:
        context = Context(database, "1", Role.ADMIN)

        def by_graphql_core() -> bytes:
            executor = Executor.build(SCHEMA._schema, document, context_value=context)
            assert isinstance(executor, Executor)
            result = execute_root_selection_set(executor)
            assert isinstance(result, ExecutionResult)
            assert result.errors is None
            return encode_json(result.data)

        def by_the_compiled_function() -> bytes:
            return encode_json(ours.function(None, PlainInfo(context), NO_VARIABLES))

        ways: dict[str, Callable[[], bytes]] = {
            "graphql-core": by_graphql_core,
            "compiled": by_the_compiled_function,
            "by hand, from entities": lambda: from_entities(database, runs),
            "by hand, from records": lambda: from_records(database, runs),
        }
        answers = {name: way() for name, way in ways.items()}
        assert len(set(answers.values())) == 1
        found = measured(ways, rounds)
    encoded = answers["compiled"]
    told: dict[str, Any] = {"runs": runs, "bytes": len(encoded), "fields": _fields(json.loads(encoded)), "ms": found}
    told["compiled to"] = {name: round(found["compiled"] / value, 3) for name, value in found.items()}
    print(json.dumps({**told, "compiling, ms": compiling, "at": datetime.now(UTC).isoformat(timespec="seconds")}))


def _fields(value: Any) -> int:
    match value:
        case dict():
            return len(value) + sum(map(_fields, value.values()))
        case list():
            return sum(map(_fields, value))
        case _:
            return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    asyncio.run(measure(options.runs, options.rounds))
    for path in QUERIES:
        text = path.read_text()
        with suppress(NotCompilableError):
            print(json.dumps({"saved operation": path.stem, "compiling, ms": compiled(text)[1]}))


if __name__ == "__main__":
    main()
