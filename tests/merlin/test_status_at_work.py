"""`merlin-graphql status` beside real Merlin: of a run that Merlin made, in the directory where it lies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.live import until
from tests.support.merlin_process import Merlin
from tests.support.merlin_site import MerlinSite
from tests.support.servers import RedisServer, binaries
from tests.support.serving import run as command

SPEC = """
description: {name: two_steps, description: One task of each step fails}
env: {variables: {OUTPUT_PATH: %s}}
global.parameters:
  P: {values: [1, 2], label: P.%%%%}
study:
  - {name: first, description: fails for one, run: {cmd: 'if [ $(P) = 1 ]; then exit $(MERLIN_SOFT_FAIL); fi'}}
  - {name: second, description: does well, run: {cmd: echo well, depends: [first_*]}}
"""


def test_a_run_of_merlin_is_shown_by_its_workspace_alone(tmp_path: Path) -> None:
    """No flag is needed: the database is Merlin's. Nothing is written into the workspace."""
    home = tmp_path / "home"
    with Merlin(home) as merlin:
        spec = tmp_path / "spec.yaml"
        spec.write_text(SPEC % (tmp_path / "studies"))
        workspace = merlin.run_local(spec)
    before = files_in(workspace)
    told = command(home, "status", f"{workspace}/", "--tasks", "failed", "--json")
    assert told.returncode == 0
    run = json.loads(told.stdout)["run"]
    assert (run["workspace"], run["status"], run["hasFailed"]) == (str(workspace), "COMPLETED", True)
    assert [(step["name"], step["progress"]["done"], step["progress"]["failed"]) for step in run["stepRuns"]] == [
        ("first", 2, 1),
        ("second", 1, 0),
    ]
    assert [(task["path"], task["returnCode"]) for task in run["tasks"]["nodes"]] == [("first/P.1", "MERLIN_SOFT_FAIL")]
    shown = command(home, "status", "two_steps", "--workspace-root", str(workspace.parent), "--exit-code")
    assert shown.returncode == 1
    assert "\nWorkspace  " in shown.stdout
    assert "Tasks of it have failed." in shown.stdout
    assert files_in(workspace) == before


@pytest.mark.anyio
async def test_a_run_at_work_is_shown_with_its_workers_and_queues(tmp_path: Path) -> None:
    """While two tasks of its second step wait: in one look at the broker and at the files."""
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no redis server is installed here")
    with (
        RedisServer.start(binary, tmp_path / "database") as server,
        MerlinSite(tmp_path / "site", server.url) as site,
    ):
        await site.work()
        run = await site.run()
        two = (run.workspace / "two" / f"P.{value}" / "MERLIN_STATUS.json" for value in (1, 2))
        files = list(two)
        await until(lambda: all(file.exists() for file in files))
        arguments = ("status", str(run.workspace), "--json", "--database", site.url, "--broker", site.url)
        done = await asyncio.to_thread(command, tmp_path / "home", *arguments)
        site.let_all()
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    counted = {step["name"]: step["progress"] for step in told["run"]["stepRuns"]}
    assert list(counted) == ["one", "two", "three"]
    assert (counted["one"]["done"], counted["one"]["failed"]) == (2, 1)
    assert {"status": "RUNNING", "count": 2} in counted["two"]["counts"]
    assert counted["three"]["done"] == 0
    (worker,) = told["run"]["workers"]
    (process,) = worker["physicalWorkers"]["nodes"]
    assert (process["status"], process["isAlive"], process["activeTasks"]) == ("RUNNING", True, 2)
    waiting = {queue["queue"]: queue["waiting"] for queue in told["queues"]}
    assert [waiting[queue] for queue in told["run"]["queues"]] == [0]


def files_in(directory: Path) -> dict[Path, int]:
    """With the times of their last changes."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
