"""`merlin-graphql status` beside real Merlin: of a run that Merlin made, in the directory where it lies."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.merlin_process import Merlin
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


def files_in(directory: Path) -> dict[Path, int]:
    """With the times of their last changes."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
