"""The page of a run in a browser, of made up workspaces and of a run of real Merlin.

What it shows when a connection or the database is lost is in test_board_truth.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.models import RunStatus
from server.database.observations import STUCK_BY, LiveWorker, QueueLength
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, Source, Task, TaskStatus
from server.settings import Settings
from server.work import stuck_runs
from tests.support.board import (
    THEMES,
    axe,
    browser,
    built,
    focused,
    open_board,
    show,
    tab_to,
    text_of,
    texts_of,
    with_axe,
)
from tests.support.board import too_wide as too_wide_of
from tests.support.browser import Page, browsing
from tests.support.live import Live, serving, until
from tests.support.made_up_workspaces import MadeUp, MadeUpReader, step_of
from tests.support.merlin_process import PROGRAMS, Merlin
from tests.support.merlin_site import MerlinSite
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid
from tests.support.servers import RedisServer, binaries

pytestmark = [pytest.mark.anyio, browser, built]

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
UPDATE = "mutation ($input: UpdateRunInput!) { updateRun(input: $input) { userErrors { message } } }"
DELETE = "mutation ($id: ID!) { deleteRun(input: {id: $id, force: true}) { userErrors { message } } }"
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
    profile: Path, workspace: MadeUp | None, status: RunStatus = RunStatus.RUNNING, **settings: Any
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
    async with serving(backend, settings=Settings(no_auth=True, **settings)) as live, browsing(profile) as page:
        reader = MadeUpReader(live.database.observations)
        if workspace is not None:
            live.database.observations.set_source(Source.WORKSPACE_FILES, works=True)
            reader.workspaces[RUN] = workspace
            reader.observe(RUN)
        yield Board(page, live, reader)


async def has_paths(page: Page, *paths: str) -> None:
    """Waits until these tasks are listed, in this order."""
    await page.until(f"JSON.stringify({PATHS}) === {json.dumps(json.dumps(paths, separators=(',', ':')))}")


# --- steps and tasks ---------------------------------------------------------------------------------------------


async def test_steps_and_tasks(tmp_path: Path) -> None:
    """The graph tells each step's progress and what it waits for; a step chosen in it, by keyboard, is the list's."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        await board.open()
        boxes = await page.evaluate("[...document.querySelectorAll('.step')].map((step) => step.textContent)")
        assert ["Waits for no step." in boxes[0], "After prep." in boxes[1], "After all of sim." in boxes[2]] == [
            True
        ] * 3
        assert "2 of 4" in boxes[1]
        assert "1 failed" in boxes[1].replace("\xa0", " ")
        assert await page.evaluate("document.querySelectorAll('.edge').length") == 2
        await has_paths(page, "sim/X.3/0", "prep", "sim/X.1/0", "sim/X.2/0", "sim/X.4/0", "post")
        await tab_to(page, "button post")
        await page.press("Enter")
        await has_paths(page, "post")
        assert await page.evaluate("location.hash") == f"{VIEW}?step=post"
        await page.press("Enter")
        await has_paths(page, "sim/X.3/0", "prep", "sim/X.1/0", "sim/X.2/0", "sim/X.4/0", "post")
        assert page.complaints == []


async def test_filters_stand_in_the_address(tmp_path: Path) -> None:
    """By status and by parameter; whoever is sent the address sees the same."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        await board.open()
        await page.until("document.querySelector('.toggle input')")
        await page.evaluate(
            "[...document.querySelectorAll('.toggle')].find((each) => /Waiting/.test(each.innerText)).click()"
        )
        await has_paths(page, "sim/X.4/0", "post")
        await page.evaluate("document.querySelector('.task-filters input[type=search]').focus()")
        await page.type("x.")
        await has_paths(page, "sim/X.4/0")
        await page.type("4")  # the focus stays there
        await page.until("location.hash.endsWith('text=x.4')")
        await has_paths(page, "sim/X.4/0")
        assert await page.evaluate("location.hash") == f"{VIEW}?status=WAITING&text=x.4"
        await page.reload()
        await has_paths(page, "sim/X.4/0")
        await show(page, f"{VIEW}?order=path")
        await has_paths(page, "prep", "sim/X.1/0", "sim/X.2/0", "sim/X.3/0", "sim/X.4/0", "post")


async def test_progress_is_followed(tmp_path: Path) -> None:
    """A task that ends is shown so in its place; what would stand elsewhere by now is offered, and moves nothing."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        await board.open()
        before = ["sim/X.3/0", "prep", "sim/X.1/0", "sim/X.2/0", "sim/X.4/0", "post"]
        await has_paths(page, *before)
        board.become(workspace().with_tasks(sim(2, FAILED, "MERLIN_HARD_FAIL")))
        await page.until(
            "[...document.querySelectorAll('.task-table .row')].some((row) => /Failed\\s+sim.X.2/.test(row.innerText))"
        )
        await has_paths(page, *before)
        await page.until("/3 of 4/.test(document.querySelectorAll('.step')[1].textContent)")
        await page.until("/66 % · 4 of 6/.test(document.querySelector('.run-head').innerText)")
        await page.click(".task-list .list-head button, .tasks .list-head button")
        await has_paths(page, "sim/X.2/0", "sim/X.3/0", "prep", "sim/X.1/0", "sim/X.4/0", "post")


async def test_thousands_of_tasks(tmp_path: Path) -> None:
    """Few rows are in the page, however many there are; the failed one comes first."""
    tasks = [Task("sim", f"sim/{index}", SUCCEEDED, sample_index=index) for index in range(20_000)]
    tasks[19_998] = Task("sim", "sim/19998", FAILED, "MERLIN_SOFT_FAIL", sample_index=19_998)
    async with board_of(tmp_path, MadeUp([step_of("sim", tasks)])) as board:
        page = board.page
        await board.open()
        await page.until(f"{PATHS}[0] === 'sim/19998'")
        await page.until("document.querySelector('.tasks .count').innerText === '20,000 tasks'")
        assert await page.evaluate(f"{PATHS}.length") < 60
        await page.evaluate("document.querySelector('.task-table .row [data-task]').closest('.row').focus()")
        await page.press("End")
        await page.until(f"{PATHS}.includes('sim/98')")  # the last of the first page, of a hundred
        await page.until("document.querySelector('.task-table .all').clientHeight > 10_000")
        await page.press("End")
        await page.until(f"{PATHS}.includes('sim/598')")


# --- a task and its output ---------------------------------------------------------------------------------------


async def test_a_log_is_followed(tmp_path: Path) -> None:
    """From the list by keyboard to a task, whose end stays in sight until the reader scrolls up; and back."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        board.write("".join(f"line {number}\n" for number in range(300)))
        await board.open(f"{VIEW}?status=RUNNING")
        await has_paths(page, LOGGED)
        await tab_to(page, "div ▶ Running")
        await page.press("Enter")
        await page.until(f"{LOG}?.textContent.endsWith('line 299\\n')")
        assert await focused(page) == f"h2 {LOGGED}"
        at_end = f"{LOG}.scrollTop + {LOG}.clientHeight >= {LOG}.scrollHeight - 2"
        await page.until(at_end)
        board.write("one more\n")
        await page.until(f"{LOG}.textContent.endsWith('line 299\\none more\\n')")
        assert await page.evaluate(f"{LOG}.textContent.match(/line 299/g).length") == 1
        await page.until(at_end)
        await page.evaluate(f"{LOG}.scrollTop = 100")
        await page.until("document.querySelector('.log-head button[aria-pressed=false]')")
        board.write("still more\n")
        await page.until(f"{LOG}.textContent.endsWith('still more\\n')")
        assert await page.evaluate(f"Math.abs({LOG}.scrollTop - 100) < 2")
        await page.click(".log-head button")
        await page.until(at_end)
        await page.press("Escape")
        await page.until("!document.querySelector('.task-panel')")
        await page.until(f"document.activeElement.textContent === {json.dumps(LOGGED)}")
        assert page.complaints == []


async def test_a_log_after_an_outage(tmp_path: Path) -> None:
    """When the server is back, the log stands there once, with what was added meanwhile."""
    backend = await memory_of(study(1, "wave", runs=(RUN,)), run(11, study_id=uid(1), run_status=RunStatus.RUNNING))
    async with browsing(tmp_path) as page:
        async with serving(backend) as live:
            board = Board(page, live, MadeUpReader(live.database.observations, {RUN: workspace()}))
            board.write("first\n")
            await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}")
            await page.until(f"{LOG}?.textContent === 'first\\n'")
        await page.until("/connection to the server is lost/.test(document.querySelector('.notices').innerText)")
        assert await page.evaluate(f"{LOG}.textContent") == "first\n"
        async with serving(backend, port=live.port) as live:
            board = Board(page, live, MadeUpReader(live.database.observations, {RUN: workspace()}))
            board.write("first\nsecond\n")
            await page.until(f"{LOG}.textContent === 'first\\nsecond\\n'")
            board.write("third\n")
            await page.until(f"{LOG}.textContent === 'first\\nsecond\\nthird\\n'")


async def test_the_files_of_a_task(tmp_path: Path) -> None:
    """Each can be chosen; the address names it; a file that comes later is shown when it comes."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        board.write("echo hello\n", LogStream.SCRIPT)
        await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}&stream=SCRIPT")
        await page.until(f"{LOG}?.textContent === 'echo hello\\n'")
        panel = await text_of(page, ".task-panel")
        assert "/runs/it's a wave_20260102-030405/sim/X.2/0" in panel
        assert "Errors none" in panel.replace("\n", " ")
        await page.evaluate("[...document.querySelectorAll('.task-panel .toggle input')][1].click()")
        await page.until("/There is no such file yet/.test(document.querySelector('.task-panel').innerText)")
        assert (await page.evaluate("location.hash")).endswith("stream=STDERR")


async def test_no_more_than_the_end_of_a_long_log(tmp_path: Path) -> None:
    """What is kept of it has a bound, and the page says that it is not all."""
    line = "x" * 99 + "\n"
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        board.write(line)
        await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}")
        await page.until(f"{LOG}?.textContent.length === 100")
        for number in range(1, 6):
            board.write(line * 4_000 + f"part {number}\n")
            await page.until(f"{LOG}.textContent.endsWith('part {number}\\n')")
        kept = await page.evaluate(f"{LOG}.textContent.length")
        assert 900_000 < kept <= 2**20
        assert "the last 1 MiB" in await text_of(page, ".log-head")


# --- how it goes -------------------------------------------------------------------------------------------------


async def test_its_history_and_its_workers_are_followed(tmp_path: Path) -> None:
    """Each change of the status comes to the list and to the time line; a worker that is heard is alive, or gone."""
    async with board_of(tmp_path, workspace(), RunStatus.INITIALIZED) as board:
        page, observations = board.page, board.live.database.observations
        await board.open()
        for number, status in enumerate(("QUEUED", "RUNNING", "CANCELLED"), 2):
            await board.ask(UPDATE, input={"id": RUN, "status": status})
            await page.until(f"document.querySelectorAll('.history > li').length === {number}")
        words = [line.split()[1] for line in await texts_of(page, ".history .status")]
        assert words == ["Cancelled", "Running", "Queued", "Initialized"]
        assert await page.evaluate("document.querySelectorAll('.time-line svg rect').length") == len(words)
        assert "Finished" in await text_of(page, ".run-head")
        assert "not known; recorded as stopped" in await text_of(page, ".processes")
        observations.set_source(Source.CELERY_EVENTS, works=True)
        for is_alive, told in ((True, "▶ yes"), (False, "✕ no, last heard")):
            heard = LiveWorker(PROCESS, "7", is_alive, datetime.now(UTC), 2, 7)
            observations.set_workers(PROCESS, [heard], [uid(21)])
            await page.until(f"document.querySelector('.processes').innerText.includes({json.dumps(told)})")


async def test_a_stuck_run_says_what_that_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer when something waits for it."""
    monkeypatch.setattr(stuck_runs, "HOLD", 0.1)
    async with board_of(tmp_path, workspace()) as board:
        page, observations = board.page, board.live.database.observations
        await board.open()
        assert "Stuck" not in await text_of(page, ".run-head")
        for source in STUCK_BY:
            observations.set_source(source, works=True)
        observations.set_queues({QUEUE: QueueLength(0, 0)})
        await page.until("/Stuck: it will not go on by itself/.test(document.querySelector('.run-head').innerText)")
        assert f"Nothing waits in {QUEUE}, and no worker is alive for it." in await text_of(page, ".run-head")
        observations.set_queues({QUEUE: QueueLength(1, 0)})
        await page.until("!/Stuck/.test(document.querySelector('.run-head').innerText)")


# --- what is noted, given and done -------------------------------------------------------------------------------


async def test_annotations_by_keyboard(tmp_path: Path) -> None:
    """Added, edited, left as it was, and removed, without a mouse; the focus is never lost."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        await board.open()
        await tab_to(page, "button Add an annotation")
        await page.press("Enter")
        await page.type("owner")
        await page.press("Tab")
        await page.type("ada")
        await page.press("Enter")
        await page.until("/owner\\s+ada/.test(document.querySelector('.notes').innerText)")
        assert await board.annotations() == {"owner": "ada"}
        await page.until("document.activeElement.textContent === 'Add an annotation'")
        await page.evaluate("document.querySelector('[data-edits=owner]').focus()")
        await page.press("Enter")
        await page.type('{"name": ')
        await page.press("Enter")
        await page.until("/begins as JSON, and is none/.test(document.querySelector('.editor [role=alert]').innerText)")
        await page.type('"ada"}')
        await page.press("Enter")
        await page.until("document.querySelector('.notes .value')?.innerText === '{\"name\":\"ada\"}'")
        assert await board.annotations() == {"owner": {"name": "ada"}}
        await page.until("document.activeElement.dataset.edits === 'owner'")
        await page.press("Enter")
        await page.until("document.querySelector('.editor')")
        await page.type("other")
        await page.press("Escape")
        await page.until("document.activeElement.dataset.edits === 'owner'")
        assert await board.annotations() == {"owner": {"name": "ada"}}
        await page.press("Tab")
        await page.press("Enter")
        await page.until("!document.querySelector('.notes > div')")
        assert await board.annotations() == {}
        await page.until("document.activeElement.textContent === 'Add an annotation'")


async def test_who_may_read_is_offered_no_change(tmp_path: Path) -> None:
    """The annotations are shown, without any way to change them."""
    async with board_of(tmp_path, workspace(), read_only=True) as board:
        await board.open()
        await board.page.until("/Nobody has noted anything/.test(document.body.innerText)")
        buttons = await texts_of(board.page, "main button")
        assert "Copy" in buttons
        assert not {"Add an annotation", "Edit", "Remove"} & set(buttons)


async def test_what_the_run_was_given(tmp_path: Path) -> None:
    """Parameters and specification are asked for when they are opened, and not before."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        await board.open()
        assert not await page.evaluate("document.querySelector('.values, pre.text')")
        await tab_to(page, "summary Parameters and samples")
        await page.press("Enter")
        await page.until("document.querySelectorAll('.values .all .row').length === 4")
        rows = await texts_of(page, ".values .all .row")
        assert rows[1].split() == ["1", "2", "b"]
        assert "1 sample of 1 column: Y." in await text_of(page, "section[aria-label='Parameters and samples']")
        await tab_to(page, "summary Specification")
        await page.press("Enter")
        await page.until("document.querySelector('pre.text')?.textContent.includes('name: wave')")


async def test_a_run_that_goes(tmp_path: Path) -> None:
    """Deleted while it is watched, or never there: the page says so."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        await board.open()
        await page.until("document.querySelector('.step')")
        await board.ask(DELETE, id=RUN)
        await page.until("/There is no such run/.test(document.querySelector('main').innerText)")
        await show(page, f"#/runs/{uid(99)}")
        await page.until("/There is no such run/.test(document.querySelector('main').innerText)")


async def test_a_server_that_reads_no_files(tmp_path: Path) -> None:
    """It says what is not known, and what makes it known, instead of parts without content."""
    async with board_of(tmp_path, None) as board:
        await board.open()
        await board.page.until("/--workspace-root/.test(document.querySelector('main').innerText)")
        assert "This server sees no tasks" in await text_of(board.page, ".run-head")
        assert not await board.page.evaluate("document.querySelector('.task-table')")
        assert PROCESS in await text_of(board.page, ".processes")


@with_axe
@pytest.mark.parametrize("theme", THEMES)
async def test_it_is_accessible(theme: str, tmp_path: Path) -> None:
    """With a task open and all that can be opened; no page of it is wider than a phone."""
    async with board_of(tmp_path, workspace()) as board:
        page = board.page
        board.write("hello\n")
        await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}")
        await page.prefer(color_scheme=theme)
        await page.until(f"{LOG}?.textContent === 'hello\\n'")
        await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        await page.until("document.querySelector('.values .all .row') && document.querySelector('pre.text:not(.log)')")
        await page.evaluate(
            "[...document.querySelectorAll('button')].find((each) => each.innerText === 'Add an annotation').click()"
        )
        assert await axe(page) == []
        for width, zoom in ((390, 1.0), (1400, 2.0)):
            await page.resize(width, zoom=zoom)
            assert await too_wide_of(page) == []
        assert page.complaints == []


# --- real Merlin -------------------------------------------------------------------------------------------------

SPEC = """
description: {{name: greet, description: says hello and fails}}
env: {{variables: {{OUTPUT_PATH: "{output}"}}}}
global.parameters: {{X: {{values: [1, 2], label: X.%%}}}}
study:
  - {{name: hello, description: says it, run: {{cmd: echo hello from $(X)}}}}
  - {{name: fail, description: fails, run: {{cmd: exit $(MERLIN_SOFT_FAIL), depends: [hello_*]}}}}
"""


async def test_a_run_of_real_merlin(tmp_path: Path) -> None:
    """Its steps, its failed task first, and what a task printed."""
    (tmp_path / "profile").mkdir()
    with Merlin(tmp_path / "home") as merlin:
        spec = merlin.home / "greet.yaml"
        spec.write_text(SPEC.format(output=merlin.home / "its studies"))
        await asyncio.to_thread(merlin.run_local, spec)
        backend = make_backend(f"sqlite:///{merlin.database_file}", BackendOptions())
        settings = Settings(no_auth=True, workspace_root=(merlin.home,))
        async with serving(backend, settings=settings) as live, browsing(tmp_path / "profile") as page:
            (id_,) = live.database.read_model.runs.records
            await open_board(page, live.port, f"#/runs/{id_}")
            await page.until(f"{PATHS}.length === 3")
            assert await page.evaluate(PATHS) == ["fail", "hello/X.1", "hello/X.2"]
            await page.evaluate("[...document.querySelectorAll('.task-table [data-task]')].at(-1).click()")
            await page.until(f"{LOG}?.textContent === 'hello from 2\\n'")


async def test_merlin_accepts_the_commands(tmp_path: Path) -> None:
    """As they are copied into a shell, for a workspace with a blank in its path: they cancel and restart the run."""
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no Redis server is installed here")
    (tmp_path / "profile").mkdir()
    with (
        RedisServer.start(binary, tmp_path / "database") as server,
        MerlinSite(tmp_path / "a home", server.url) as site,
    ):
        launched = await site.run()
        backend = make_backend(server.url, BackendOptions())
        async with serving(backend) as live, browsing(tmp_path / "profile") as page:
            (id_,) = live.database.read_model.runs.records
            await open_board(page, live.port, f"#/runs/{id_}")
            names, texts = await texts_of(page, ".command .strong"), await texts_of(page, ".commands code")
            commands = dict(zip(names, texts, strict=True))

            def status() -> RunStatus:
                return live.database.read_model.runs.records[id_].run_status

            await in_a_shell(commands["Cancel"], site.merlin.home)
            await until(lambda: status() is RunStatus.CANCELLED)
            await in_a_shell(commands["Restart"], site.merlin.home)
            await until(lambda: status() is RunStatus.QUEUED)
        for name in ("Status", "Status of each task"):
            assert str(launched.workspace) in await in_a_shell(commands[name], site.merlin.home)
        assert commands["Start workers"] == commands["Cancel"].replace("cancel", "run-workers")


async def in_a_shell(command: str, home: Path) -> str:
    """What it prints, if it ends well."""
    environment = {**os.environ, "HOME": str(home), "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_shell(
        command, cwd=home, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()
