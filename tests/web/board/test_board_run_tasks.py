"""Steps, tasks and the output of a task on the board's page of a run, whose workspace is made up.

What the page shows when a connection or the database is lost is in test_board_truth.py.
"""

from __future__ import annotations

import json

import pytest

from server.database.models import RunStatus
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, Task
from tests.support.board import browser, built, focused, show, tab_to, text_of
from tests.support.board_runs import (
    FAILED,
    LOG,
    LOGGED,
    PATHS,
    RUN,
    RUNNING,
    SUCCEEDED,
    VIEW,
    WAITING,
    Board,
    board_of,
    has_paths,
    sim,
    workspace,
)
from tests.support.browser import browsing
from tests.support.live import serving
from tests.support.made_up_workspaces import MadeUp, MadeUpReader, step_of
from tests.support.records import memory_of, run, study, uid

pytestmark = [pytest.mark.anyio, browser, built]

BY_SEVERITY = ("sim/X.3/0", "sim/X.2/0", "sim/X.4/0", "post", "prep", "sim/X.1/0")
"""The tasks of the workspace: failed, running, waiting, succeeded."""
NEWS = "document.querySelector('.tasks .list-head button')"
OFFERED = "[...document.querySelectorAll('#parameter-values option')].map((option) => option.value)"


# --- steps and tasks ---------------------------------------------------------------------------------------------


async def test_steps_and_tasks() -> None:
    """The graph tells each step's progress and what it waits for; a step chosen in it, by keyboard, is the list's."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.open()
        boxes = await page.evaluate("[...document.querySelectorAll('.step')].map((step) => step.textContent)")
        assert ["Waits for no step." in boxes[0], "After prep." in boxes[1], "After all of sim." in boxes[2]] == [
            True
        ] * 3
        assert "2 of 4" in boxes[1]
        assert "1 failed" in boxes[1].replace("\xa0", " ")
        await page.becomes("document.querySelectorAll('.edge').length", 2)
        await has_paths(page, *BY_SEVERITY)
        await tab_to(page, "button post")
        await page.press("Enter")
        await has_paths(page, "post")
        await page.becomes("location.hash", f"{VIEW}?step=post")
        await page.press("Enter")
        await has_paths(page, *BY_SEVERITY)
        assert page.complaints == []


async def test_filters_stand_in_the_address() -> None:
    """By status and by text; whoever is sent the address sees the same."""
    async with board_of(workspace()) as board:
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
        await page.becomes("location.hash", f"{VIEW}?status=WAITING&text=x.4")
        await page.reload()
        await has_paths(page, "sim/X.4/0")
        await show(page, f"{VIEW}?order=path")
        await has_paths(page, "prep", "sim/X.1/0", "sim/X.2/0", "sim/X.3/0", "sim/X.4/0", "post")


async def test_progress_is_followed() -> None:
    """A task that ends is shown so in its place; what would stand elsewhere by now is offered, and moves nothing."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.open()
        await has_paths(page, *BY_SEVERITY)
        board.become(workspace().with_tasks(sim(2, FAILED, "MERLIN_HARD_FAIL")))
        await page.until(
            "[...document.querySelectorAll('.task-table .row')].some((row) => /Failed\\s+sim.X.2/.test(row.innerText))"
        )
        await has_paths(page, *BY_SEVERITY)
        await page.until("/3 of 4/.test(document.querySelectorAll('.step')[1].textContent)")
        await page.until("/66 % · 4 of 6/.test(document.querySelector('.run-head').innerText)")
        await page.until(f"{NEWS}?.innerText === '1 more failed: show it'")
        await page.click(".tasks .list-head button")
        await has_paths(page, "sim/X.2/0", "sim/X.3/0", "sim/X.4/0", "post", "prep", "sim/X.1/0")
        await page.until(f"!{NEWS}")


async def test_a_parameter_is_chosen_by_keyboard() -> None:
    """Its name and its value among those that the run has; the address holds both, and any value may be typed."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.open()
        await page.until("document.querySelectorAll('.task-filters select').length === 3")
        await tab_to(page, "select Parameter")
        await page.press("ArrowDown")
        await has_paths(page, *(path for path in BY_SEVERITY if path.startswith("sim")))
        assert await page.evaluate("location.hash") == f"{VIEW}?parameter=X"
        await tab_to(page, "input Value of X")
        assert await page.evaluate(OFFERED) == ["1", "2", "3", "4"]
        await page.type("4")
        await has_paths(page, "sim/X.4/0")
        assert await page.evaluate("location.hash") == f"{VIEW}?parameter=X%3D4"
        assert await page.evaluate(OFFERED) == ["4"]
        await page.reload()
        await has_paths(page, "sim/X.4/0")
        await page.until(f"{OFFERED}.length === 1")
        await show(page, f"{VIEW}?parameter=X%3Dfour")
        await page.until("/No task matches/.test(document.querySelector('.tasks').innerText)")
        await tab_to(page, "select Parameter")
        await page.press("ArrowUp")
        await has_paths(page, *BY_SEVERITY)
        assert await page.evaluate("location.hash") == VIEW
        assert page.complaints == []


async def test_what_fails_among_many_that_failed_is_told() -> None:
    """Also while the page has only some of these, and of the time in which another page was shown."""
    tasks = [Task("sim", f"sim/{index}", FAILED, sample_index=index) for index in range(700)]
    tasks[0] = tasks[0]._replace(status=RUNNING)
    made = MadeUp([step_of("sim", tasks)])
    async with board_of(made) as board:
        page = board.page
        await board.open()
        await page.until(f"{PATHS}[0] === 'sim/1'")
        await page.until("document.querySelector('.tasks .count').innerText === '700 tasks'")
        made = MadeUp([step_of("sim", [*tasks, Task("sim", "sim/700", WAITING, sample_index=700)])])
        board.become(made)
        await page.until(f"{NEWS}?.innerText === '1 more matches: show it'")  # so the page hears of changes
        await show(page, "#/runs")
        await page.until("document.querySelector('[role=grid] [role=row]')")
        board.become(made.with_tasks(tasks[0]._replace(status=FAILED)))
        await show(page, VIEW)
        await page.until(f"{NEWS}?.innerText === '1 more failed: show it'")
        assert await page.evaluate(f"{PATHS}[0]") == "sim/1"
        await page.click(".tasks .list-head button")
        await page.until(f"{PATHS}[0] === 'sim/0'")
        await page.until(f"!{NEWS}")


async def test_thousands_of_tasks() -> None:
    """Few rows are in the page, however many there are; the failed one comes first."""
    tasks = [Task("sim", f"sim/{index}", SUCCEEDED, sample_index=index) for index in range(20_000)]
    tasks[19_998] = Task("sim", "sim/19998", FAILED, "MERLIN_SOFT_FAIL", sample_index=19_998)
    async with board_of(MadeUp([step_of("sim", tasks)])) as board:
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


async def test_a_log_is_followed() -> None:
    """From the list by keyboard to a task, whose end stays in sight until the reader scrolls up; and back."""
    async with board_of(workspace()) as board:
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
        await page.becomes(f"{LOG}.textContent.match(/line 299/g).length", 1)
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


async def test_a_log_after_an_outage() -> None:
    """When the server is back, the log stands there once, with what was added; one that replaces it stands alone."""
    backend = await memory_of(study(1, "wave", runs=(RUN,)), run(11, study_id=uid(1), run_status=RunStatus.RUNNING))
    async with browsing() as page:
        async with serving(backend) as live:
            board = Board(page, live, MadeUpReader(live.database.observations, {RUN: workspace()}))
            board.write("first\n")
            await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}")
            await page.until(f"{LOG}?.textContent === 'first\\n'")
        await page.until("/connection to the server is lost/.test(document.querySelector('.notices').innerText)")
        await page.becomes(f"{LOG}.textContent", "first\n")
        async with serving(backend, port=live.port) as live:
            board = Board(page, live, MadeUpReader(live.database.observations, {RUN: workspace()}))
            board.write("first\nsecond\n")
            await page.until(f"{LOG}.textContent === 'first\\nsecond\\n'")
            board.write("third\n")
            await page.until(f"{LOG}.textContent === 'first\\nsecond\\nthird\\n'")
            board.reader.logs.clear()
            board.write("another one, which is longer\n")
            await page.until(f"{LOG}.textContent === 'another one, which is longer\\n'")


async def test_the_files_of_a_task() -> None:
    """Each can be chosen; the address names it; a file that comes later is shown when it comes."""
    async with board_of(workspace()) as board:
        page = board.page
        board.write("echo hello\n", LogStream.SCRIPT)
        await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}&stream=SCRIPT")
        await page.until(f"{LOG}?.textContent === 'echo hello\\n'")
        await page.until("/Errors\\s+none/.test(document.querySelector('.task-panel').innerText)")
        assert "/runs/it's a wave_20260102-030405/sim/X.2/0" in await text_of(page, ".task-panel")
        await page.evaluate("[...document.querySelectorAll('.task-panel .toggle input')][1].click()")
        await page.until("/There is no such file yet/.test(document.querySelector('.task-panel').innerText)")
        assert (await page.evaluate("location.hash")).endswith("stream=STDERR")
        board.write("a warning\n", LogStream.STDERR)
        await page.until(f"{LOG}?.textContent === 'a warning\\n'")
        await page.until("!/Errors none/.test(document.querySelector('.task-panel').innerText)")


async def test_no_more_than_the_end_of_a_long_log() -> None:
    """What is kept of it has a bound, and the page says that it is not all."""
    line = "x" * 99 + "\n"
    async with board_of(workspace()) as board:
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
