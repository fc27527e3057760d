"""Records with large values here and there, and what an answer shows of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from graphql import GraphQLResolveInfo, GraphQLSchema, get_named_type, is_leaf_type

from schema.context import Context
from schema.encoding import encode_json
from schema.operation import Operation
from server.database.models import Model
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.work import succeeds_by

COUNTED = 7_000
"""Bytes that no value of up to 1,024 characters takes."""


def large_records(random: Random, *, runs: int = 12) -> list[Model]:
    """A few studies, runs and workers. Of their texts, lists and objects, one in five is large."""

    def text(usual: str) -> str:
        return usual if random.random() < 0.8 else usual + random.choice(["x", "\u00e9", "\u65e5", "\n", '"']) * size()

    def data() -> str:
        return "{}" if random.random() < 0.8 else json.dumps({"text": text("x"), "numbers": [0.5, -1] * size()})

    def some(*usual: str) -> tuple[str, ...]:
        return usual if random.random() < 0.8 else (*usual, *(f"q{n}" for n in range(size() // 2)))

    def size() -> int:
        return random.choice([2_000, 7_500, 8_000, 30_000])

    workers = [logical_worker(text(f"w{n}"), some("a"), additional_data=data()) for n in range(3)]
    return [
        *(study(n, text(f"s{n}"), additional_data=data()) for n in (1, 2)),
        *workers,
        *(
            run(
                10 + n,
                text(f"/r{n}"),
                study_id=uid(random.choice([1, 2])),
                steps=some(),
                queues=some("q"),
                workers=(*some(), *(worker.id for worker in random.sample(workers, random.randint(0, 3)))),
                parameters=data(),
                samples=data(),
                additional_data=data(),
            )
            for n in range(random.randint(1, runs))
        ),
        *(
            physical_worker(
                50 + n,
                text(f"celery@{n}"),
                logical_worker_id=random.choice(workers).id,
                args=random.choice([data(), text("--loud")]),
                host=text("h"),
                additional_data=data(),
            )
            for n in range(4)
        ),
    ]


def large_bytes_of(
    schema: GraphQLSchema, operation: Operation, variables: Mapping[str, Any] | None, context: Context
) -> int | None:
    """Bytes of the large values in the response, each as often as it stands there; None if there is an error."""
    found = 0

    def weigh(resolve: Callable[..., Any], source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        nonlocal found
        value = resolve(source, info, **arguments)
        if is_leaf_type(get_named_type(info.return_type)) and isinstance(value, str | list | dict):
            size = len(encode_json(value))
            found += size if size > COUNTED else 0
        return value

    return found if succeeds_by(weigh, schema, operation, variables, context) else None
