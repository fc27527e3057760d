"""The board's page of a run: its state, what is noted and given, and a run of real Merlin."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.models import RunStatus
from server.database.observations import STUCK_BY, LiveWorker, QueueLength
from server.database.run_tasks import task_id
from server.database.workspaces import Source
from server.settings import Settings
from server.work import stuck_runs
from tests.support.board import (
    THEMES,
    axe,
    browser,
    built,
    open_board,
    show,
    tab_to,
    text_of,
    texts_of,
    too_wide,
    with_axe,
)
from tests.support.board_runs import LOG, LOGGED, PATHS, PROCESS, QUEUE, RUN, VIEW, Board, board_of, workspace
from tests.support.browser import browsing
from tests.support.live import serving, until
from tests.support.merlin_process import PROGRAMS, Merlin
from tests.support.merlin_site import MerlinSite
from tests.support.records import uid
from tests.support.servers import RedisServer, binaries

pytestmark = [pytest.mark.anyio, browser, built]

INPUT = "section[aria-label='Parameters and samples']"
SAMPLES = "document.querySelector('[role=grid][aria-label=Samples]')"
SCROLLER = f"{SAMPLES}.querySelector('.scroller')"
UPDATE = "mutation ($input: UpdateRunInput!) { updateRun(input: $input) { userErrors { message } } }"
DELETE = "mutation ($id: ID!) { deleteRun(input: {id: $id, force: true}) { userErrors { message } } }"


# --- how it goes -------------------------------------------------------------------------------------------------


async def test_its_history_and_its_workers_are_followed() -> None:
    """Each change of the status comes to the list and to the time line; a worker that is heard is alive, or gone."""
    async with board_of(workspace(), RunStatus.INITIALIZED) as board:
        page, observations = board.page, board.live.database.observations
        await board.open()
        for number, status in enumerate(("QUEUED", "RUNNING", "CANCELLED"), 2):
            await board.ask(UPDATE, input={"id": RUN, "status": status})
            await page.until(f"document.querySelectorAll('.history > li').length === {number}")
        words = [line.split()[1] for line in await texts_of(page, ".history .status")]
        assert words == ["Cancelled", "Running", "Queued", "Initialized"]
        await page.becomes("document.querySelectorAll('.time-line svg rect').length", len(words))
        assert "Finished" in await text_of(page, ".run-head")
        assert "not known; recorded as stopped" in await text_of(page, ".processes")
        observations.set_source(Source.CELERY_EVENTS, works=True)
        for is_alive, told in ((True, "▶ yes"), (False, "✕ no, last heard")):
            heard = LiveWorker(PROCESS, "7", is_alive, datetime.now(UTC), 2, 7)
            observations.set_workers(PROCESS, [heard], [uid(21)])
            await page.until(f"document.querySelector('.processes').innerText.includes({json.dumps(told)})")


async def test_a_stuck_run_says_what_that_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer when something waits for it."""
    monkeypatch.setattr(stuck_runs, "HOLD", 0.1)
    async with board_of(workspace()) as board:
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


async def test_annotations_by_keyboard() -> None:
    """Added, edited, left as it was, and removed, without a mouse; the focus is never lost."""
    async with board_of(workspace()) as board:
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


async def test_who_may_read_is_offered_no_change() -> None:
    """The annotations are shown, without any way to change them."""
    async with board_of(workspace(), read_only=True) as board:
        await board.open()
        await board.page.until("/Nobody has noted anything/.test(document.body.innerText)")
        buttons = await texts_of(board.page, "main button")
        assert "Copy" in buttons
        assert not {"Add an annotation", "Edit", "Remove"} & set(buttons)


async def test_what_the_run_was_given() -> None:
    """Parameters and specification are asked for when they are opened, and not before."""
    async with board_of(workspace()) as board:
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
        await page.permit("clipboardReadWrite", "clipboardSanitizedWrite")
        await tab_to(page, "button Copy the specification")
        await page.press("Enter")
        await page.until("document.activeElement.innerText === 'Copied'")
        assert await page.evaluate("navigator.clipboard.readText()") == workspace().spec


async def open_samples(board: Board) -> None:
    await board.open()
    await tab_to(board.page, "summary Parameters and samples")
    await board.page.press("Enter")


async def test_a_hundred_thousand_samples_are_scrolled() -> None:
    """Rows are asked for when they come in sight, the page holds few of them, and no long task keeps it busy."""
    count = 100_000
    asked: list[tuple[int, int]] = []
    async with board_of(replace(workspace(), sample_columns=("Y", "Z"), sample_count=count)) as board:
        page, reader = board.page, board.reader

        async def rows(run_id: str, first: int, offset: int) -> list[list[Any]] | None:
            assert run_id == RUN
            asked.append((offset, first))
            return [[row / 8, f"z{row}"] for row in range(offset, min(offset + first, count))][:150]

        reader.sample_rows = rows  # type: ignore[method-assign]
        await board.open()
        await page.until("document.querySelector('.step')")
        assert asked == []
        await tab_to(page, "summary Parameters and samples")
        await page.press("Enter")
        await page.until(f"{SAMPLES}.querySelectorAll('.all .row').length > 5")
        assert f"{count:,} samples of 2 columns: Y, Z." in await text_of(page, INPUT)
        await page.becomes(
            f"[...{SAMPLES}.querySelectorAll('[role=columnheader]')].map(e => e.innerText)",
            [
                "No.",
                "Y",
                "Z",
            ],
        )
        assert asked == [(0, 200)]
        await page.evaluate(f"{SAMPLES}.querySelector('.all .row').focus()")
        for key, row in (("End", count - 1), ("PageUp", None), ("Home", 0), ("PageDown", None), ("End", count - 1)):
            await page.press(key)
            await page.until(f"!{SAMPLES}.innerText.includes('…')")
            if row is not None:
                await page.until(f"document.activeElement.innerText.split(/\\s+/)[2] === 'z{row}'")
        for share in range(1, 40):
            await page.evaluate(f"{SCROLLER}.scrollTop = {SCROLLER}.scrollHeight * {share * 37 % 40} / 40")
        in_sight = f"[...{SAMPLES}.querySelectorAll('.all .row[tabindex=\"-1\"]')]"  # one was left far behind
        await page.until(f"!{in_sight}.some(row => row.innerText.includes('…'))")
        shown = await page.evaluate(f"{in_sight}.map(row => row.innerText.trim().split(/\\s+/))")
        assert len(shown) < 60
        for number, first, second in shown:
            assert (float(first), second) == (int(number) / 8, f"z{number}")
        assert sum(first for _, first in asked) < 20_000
        assert page.complaints == []


async def test_samples_that_cannot_be_read_say_so() -> None:
    """With what may be the reason; they are there when they can be."""
    async with board_of(workspace()) as board:
        page = board.page
        await open_samples(board)
        await page.until(f"/The server can't read their values now/.test(document.querySelector({INPUT!r}).innerText)")
        board.reader.samples[RUN] = [[0.25]]
        await tab_to(page, "button Try again")
        await page.press("Enter")
        await page.until(f"{SAMPLES}?.querySelector('.all .row').innerText.split(/\\s+/)[1] === '0.25'")


async def test_a_file_of_samples_that_has_become_shorter() -> None:
    """The table ends where the file does, and says so."""
    async with board_of(replace(workspace(), sample_count=1000)) as board:
        board.reader.samples[RUN] = [["NaN"], [True], ["x y"]]
        await open_samples(board)
        page = board.page
        await page.until(f"/The file has only 3 rows by now/.test(document.querySelector({INPUT!r}).innerText)")
        texts = await page.evaluate(f"[...{SAMPLES}.querySelectorAll('.all .row')].map(row => row.innerText)")
        assert [text.split()[1] for text in texts] == ["NaN", "true", "x"]


async def test_a_run_that_goes() -> None:
    """Deleted while it is watched, or never there: the page says so."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.open()
        await page.until("document.querySelector('.step')")
        await board.ask(DELETE, id=RUN)
        await page.until("/There is no such run/.test(document.querySelector('main').innerText)")
        await show(page, f"#/runs/{uid(99)}")
        await page.until("/There is no such run/.test(document.querySelector('main').innerText)")


async def test_a_server_that_reads_no_files() -> None:
    """It says what is not known, and what makes it known, instead of parts without content."""
    async with board_of(None) as board:
        await board.open()
        await board.page.until("/--workspace-root/.test(document.querySelector('main').innerText)")
        assert "This server sees no tasks" in await text_of(board.page, ".run-head")
        assert not await board.page.evaluate("document.querySelector('.task-table')")
        assert PROCESS in await text_of(board.page, ".processes")


@with_axe
@pytest.mark.parametrize("theme", THEMES)
async def test_it_is_accessible(theme: str) -> None:
    """With a task open and all that can be opened; no page of it is wider than a phone."""
    name = "AVERAGE_TEMPERATURE_OF_THE_OUTER_SHELL"
    made = replace(workspace(), parameter_values={name: ["of more characters " * 5]})
    async with board_of(made) as board:
        page = board.page
        board.write("hello\n")
        await board.open(f"{VIEW}?parameter={name}&task={task_id(RUN, LOGGED)}")
        await page.until("document.querySelectorAll('.task-filters input[type=search]').length === 2")
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
            assert await too_wide(page) == []
        assert page.complaints == []


# --- real Merlin -------------------------------------------------------------------------------------------------

SPEC = """
description: {{name: greet, description: says hello and fails}}
env: {{variables: {{OUTPUT_PATH: "{output}"}}}}
global.parameters: {{X: {{values: [1, 2], label: X.%%}}}}
merlin: {{samples: {{file: $(MERLIN_INFO)/s.npy, column_labels: [Y, Z], generate: {{cmd: "{make}"}}}}}}
study:
  - {{name: hello, description: says it, run: {{cmd: echo hello from $(X)}}}}
  - {{name: fail, description: fails, run: {{cmd: exit $(MERLIN_SOFT_FAIL), depends: [hello_*]}}}}
"""


MAKE = "import numpy, sys; numpy.save(sys.argv[1], numpy.array([[0.5, 1e-9], [numpy.nan, 3]]))"


async def test_a_run_of_real_merlin(tmp_path: Path) -> None:
    """Its steps, its failed task first, what a task printed, and the samples that Merlin had generated."""
    (tmp_path / "profile").mkdir()
    with Merlin(tmp_path / "home") as merlin:
        spec = merlin.home / "greet.yaml"
        make = f"{sys.executable} {merlin.home / 'make.py'} $(MERLIN_INFO)/s.npy"
        (merlin.home / "make.py").write_text(MAKE)
        spec.write_text(SPEC.format(output=merlin.home / "its_studies", make=make))
        await asyncio.to_thread(merlin.run_local, spec)
        backend = make_backend(f"sqlite:///{merlin.database_file}", BackendOptions())
        settings = Settings(no_auth=True, workspace_root=(merlin.home,))
        async with serving(backend, settings=settings) as live, browsing() as page:
            (id_,) = live.database.read_model.runs.records
            await open_board(page, live.port, f"#/runs/{id_}")
            await page.until(f"{PATHS}.length === 3")
            await page.becomes(PATHS, ["fail", "hello/X.1", "hello/X.2"])
            await page.evaluate("[...document.querySelectorAll('.task-table [data-task]')].at(-1).click()")
            await page.until(f"{LOG}?.textContent === 'hello from 2\\n'")
            await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
            await page.until(f"{SAMPLES}?.querySelectorAll('.all .row').length === 2")
            texts = await page.evaluate(f"[...{SAMPLES}.querySelectorAll('.row')].map(row => row.innerText)")
            assert [text.split() for text in texts] == [["No.", "Y", "Z"], ["0", "0.5", "1e-9"], ["1", "NaN", "3"]]


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
        async with serving(backend) as live, browsing() as page:
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
