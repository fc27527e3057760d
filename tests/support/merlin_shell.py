"""The child of merlin_site.py: has Merlin imported, and forks for each command, which saves the second of its start.

A request is a JSON line: what to do, and the file for what that prints. It is answered by the id of its process, which
leads a group of its own, and once that has ended by its exit code.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import merlin.celery
import merlin.cli.commands.database.database
import merlin.main
from merlin.common.enums import RunStatus
from merlin.common.tasks import expand_tasks_with_samples, update_run_status

if TYPE_CHECKING:
    from collections.abc import Callable


SECONDS = 40.0
"""What takes longer hangs, and says where."""


def command(args: list[str]) -> None:
    """What `merlin` does."""
    sys.argv = ["merlin", *args]
    merlin.main.main()


def status(workspace: str, status: str) -> None:
    """What Merlin's tasks do at each change of a run's status."""
    if status == RunStatus.RUNNING.value:
        with suppress(IndexError):  # it begins with the status, and then finds no step to queue
            expand_tasks_with_samples.run(None, [], [["1"]], [], None, {}, 25, workspace)
    else:
        update_run_status(workspace, RunStatus(status))


ACTIONS: dict[str, Callable[..., None]] = {"command": command, "status": status}


def act(output: str, do: str, request: dict[str, Any]) -> NoReturn:
    """In the forked process, for the rest of its life."""
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    code: Any = 0
    try:
        ACTIONS[do](**request)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # to tidy up what it has of its parent takes longer than the rest


def main() -> None:
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in requests:
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                act(request.pop("output"), request.pop("do"), request)
            print(child, file=answers, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    main()
