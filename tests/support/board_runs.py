"""The board's page of a run whose workspace a test makes up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from server.database.models import RunStatus
from server.database.workspaces import LogStream, Source, Task, TaskStatus
from server.settings import Settings
from tests.support.board import open_board
from tests.support.browser import Page, browsing
from tests.support.live import Live, serving
from tests.support.made_up_workspaces import MadeUp, MadeUpReader, step_of
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

RUN = uid(11)
PROCESS = "celery@hand.node1"
QUEUE = "[merlin]_q"
VIEW = f"#/runs/{RUN}"
LOGGED = "sim/X.2/0"
"""The path of the task whose output is read."""
SUCCEEDED, FAILED, RUNNING, WAITING = (
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
    TaskStatus.RUNNING,
    TaskStatus.WAITING,
)
PATHS = "[...document.querySelectorAll('.task-table [data-task]')].map((link) => link.textContent)"
LOG = "document.querySelector('pre.log')"


def sim(value: int, status: TaskStatus, code: str | None = None) -> Task:
    return Task("sim", f"sim/X.{value}/0", status, code, 0, 2.0 if code else None, parameters={"X": value})


def workspace() -> MadeUp:
    """A step between two others, with a task in each state."""
    tasks = [sim(1, SUCCEEDED, "MERLIN_SUCCESS"), sim(2, RUNNING), sim(3, FAILED, "MERLIN_SOFT_FAIL"), sim(4, WAITING)]
    return MadeUp(
        [
            step_of("prep", [Task("prep", "prep", SUCCEEDED, "MERLIN_SUCCESS", 0, 1.5)]),
            step_of("sim", tasks, depends_on=("prep",)),
            step_of("post", [Task("post", "post", WAITING)], depends_on=("sim_*",)),
        ],
        spec="description:\n  name: wave\n",
        parameter_values={"X": [1, 2, 3, 4], "NAME": ["a", "b", "c", "d"]},
        sample_columns=("Y",),
        sample_count=1,
    )


@dataclass(frozen=True)
class Board:
    """A page beside the server that it asks, and what this server reads."""

    page: Page
    live: Live
    reader: MadeUpReader

    async def open(self, view: str = VIEW, **size: int) -> None:
        await open_board(self.page, self.live.port, view, **size)

    def become(self, workspace: MadeUp) -> None:
        """What the server reads from now on."""
        self.reader.workspaces[RUN] = workspace
        self.reader.observe(RUN)

    def write(self, text: str, stream: LogStream = LogStream.STDOUT) -> None:
        """To the end of the log that is followed."""
        self.reader.logs[LOGGED, stream] = self.reader.logs.get((LOGGED, stream), "") + text
        self.live.database.observations.notifier.notify()

    async def ask(self, query: str, **variables: Any) -> Any:
        """Of the server, as another program."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(self.live.http, json={"query": query, "variables": variables})
        return answer.json()["data"]

    async def annotations(self) -> Any:
        return (await self.ask("query ($id: ID!) { run(id: $id) { annotations } }", id=RUN))["run"]["annotations"]


@asynccontextmanager
async def board_of(
    workspace: MadeUp | None, status: RunStatus = RunStatus.RUNNING, **settings: Any
) -> AsyncIterator[Board]:
    """A run of the study wave with these files; without any, the server reads none."""
    worker = logical_worker("hand", runs=(RUN,), physical_workers=(uid(21),))
    backend = await memory_of(
        study(1, "wave", runs=(RUN,)),
        run(
            11,
            "/runs/it's a wave_20260102-030405",
            study_id=uid(1),
            workers=(worker.id,),
            queues=(QUEUE,),
            run_status=status,
        ),
        worker,
        physical_worker(21, PROCESS, logical_worker_id=worker.id),
    )
    async with serving(backend, settings=Settings(no_auth=True, **settings)) as live, browsing() as page:
        reader = MadeUpReader(live.database.observations)
        if workspace is not None:
            live.database.observations.set_source(Source.WORKSPACE_FILES, works=True)
            reader.workspaces[RUN] = workspace
            reader.observe(RUN)
        yield Board(page, live, reader)


async def has_paths(page: Page, *paths: str) -> None:
    """Waits until these tasks are listed, in this order."""
    await page.until(f"JSON.stringify({PATHS}) === {json.dumps(json.dumps(paths, separators=(',', ':')))}")
