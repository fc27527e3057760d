"""The child of merlin_process.py: real Merlin behind JSON lines, an answer for each request.

Merlin reads its configuration from HOME when it is imported, so it needs a process of its own.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from merlin.common.enums import RunStatus, WorkerStatus
from merlin.db_scripts.merlin_db import MerlinDatabase
from merlin.exceptions import RunNotFoundError, StudyNotFoundError, WorkerNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("study", "run", "logical_worker", "physical_worker")

# What JSON can't carry: the setters' arguments of other types than text and number.
ARGUMENTS: dict[str, Callable[[str], Any]] = {
    "set_run_status": RunStatus,
    "set_worker_status": WorkerStatus,
    "set_heartbeat_timestamp": datetime.fromisoformat,
    "set_latest_start_time": datetime.fromisoformat,
}


@cache
def database() -> Any:
    return MerlinDatabase()


def call(path: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    method = database()
    for name in path.split("."):
        method = getattr(method, name)
    return method(*args, **kwargs)


def entity(kind: str, identifier: str, method: str, args: list[Any]) -> Any:
    convert = ARGUMENTS.get(method)
    return getattr(database().get(kind, identifier), method)(*(map(convert, args) if convert else args))


def get(kind: str, identifier: str) -> dict[str, Any] | None:
    try:
        found = database().get(kind, identifier)
    except (RunNotFoundError, StudyNotFoundError, WorkerNotFoundError):
        return None
    return dict(vars(found.entity_info))


def dump() -> dict[str, list[dict[str, Any]]]:
    found = {kind: [vars(each.entity_info) for each in database().get_all(kind)] for kind in KINDS}
    return {kind: sorted(records, key=lambda record: str(record["id"])) for kind, records in found.items()}


ACTIONS: dict[str, Callable[..., Any]] = {"call": call, "entity": entity, "get": get, "dump": dump}


def plain(value: Any) -> Any:
    """JSON for what Merlin returns; an entity is its id."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set):
        return sorted(value)
    return value.get_id()


def revived(value: dict[str, Any]) -> Any:
    return set(value["__set__"]) if value.keys() == {"__set__"} else value


def answer(line: str) -> str:
    try:
        request = json.loads(line, object_hook=revived)
        return json.dumps({"value": ACTIONS[request.pop("do")](**request)}, default=plain)
    except Exception as error:  # noqa: BLE001 - whatever Merlin raises is the answer
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    """What Merlin prints goes to stderr, and its questions are answered by an end of file."""
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w") as answers:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for line in requests:
            print(answer(line), file=answers, flush=True)


if __name__ == "__main__":
    main()
