"""The child of merlin_process.py: real Merlin behind JSON lines, an answer for each request.

Merlin reads its configuration from HOME when it is imported, so it needs a process of its own.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from enum import Enum
from functools import cache, partial, partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import merlin.main
from celery.app.control import Inspect
from kombu.transport.redis import Transport
from merlin.backends.sqlite.sqlite_connection import SQLiteConnection
from merlin.common.enums import RunStatus, WorkerStatus
from merlin.db_scripts import garbage_collector
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


def task(name: str, workspace: str) -> None:
    """What a task does about the status of its run."""
    from merlin.common import tasks  # noqa: PLC0415 - takes long, and is seldom needed

    if name == "running":
        with suppress(Exception):  # that there is nothing to expand
            tasks.expand_tasks_with_samples(None, [], [], [], None, {}, 25, workspace)
    else:
        tasks.update_run_status(workspace, RunStatus(name.upper()))


class _Errors(logging.Handler):
    """The lines that Merlin logs as errors; what it caught, with where that was raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        caught = sys.exc_info()[1]
        if caught is not None:
            frame = traceback.extract_tb(caught.__traceback__)[-1]
            place = f"{Path(frame.filename).name}, {frame.name}"
            self.lines[-1] = f"{type(caught).__name__}: {self.lines[-1]} ({place})"


def command(args: list[str], mount: str | None) -> dict[str, Any]:
    """A command as a shell would give it, without the second that it takes to start."""
    errors, printed = _Errors(), io.StringIO()
    logger = logging.getLogger("merlin")
    logger.setLevel(logging.INFO)
    logger.addHandler(errors)
    given, sys.argv = sys.argv, ["merlin", *args]
    mounts, garbage_collector.get_accessible_mounts = garbage_collector.get_accessible_mounts, partial(_mounts, mount)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            merlin.main.main()
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = given
        garbage_collector.get_accessible_mounts = mounts
        logger.removeHandler(errors)
    return {"code": code, "errors": errors.lines, "printed": printed.getvalue()}


def _mounts(mount: str | None, *, exclude_root: bool) -> list[Path]:
    """Garbage collection deletes runs without a workspace only where it would lie on a mounted file system."""
    assert exclude_root
    return [] if mount is None else [Path(mount)]


def prepare() -> None:
    """So that a command is no slower, and no louder, the more have been before."""
    merlin.main.setup_logging = lambda **_: None
    merlin.main.build_main_parser = cache(merlin.main.build_main_parser)
    Inspect.__init__ = partialmethod(Inspect.__init__, timeout=0.01)  # no worker is there to be waited for
    transport: Any = Transport  # declared in whole seconds
    transport.brpop_timeout = 0.01
    enter = SQLiteConnection.__enter__
    SQLiteConnection.__enter__ = lambda connection: _without_waiting_for_the_disk(enter(connection))
    logging.getLogger("merlin").propagate = False


def _without_waiting_for_the_disk(connection: Any) -> Any:
    connection.execute("PRAGMA synchronous=OFF")
    return connection


ACTIONS: dict[str, Callable[..., Any]] = {
    "call": call,
    "entity": entity,
    "get": get,
    "dump": dump,
    "command": command,
    "task": task,
}


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
        prepare()
        for line in requests:
            print(answer(line), file=answers, flush=True)


if __name__ == "__main__":
    main()
