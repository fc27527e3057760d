"""The source WORKSPACE_FILES: what it reads, when, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.models import RunStatus
from server.database.workspaces import Source, TaskStatus
from tests.support.records import run, uid
from tests.support.workspaces import FAILED, RUNNING, WrittenWorkspace, files_of

pytestmark = pytest.mark.anyio


async def test_a_run_that_is_asked_for_is_read(tmp_path: Path) -> None:
    """What its files say stands in the observations when the question returns."""
    written = WrittenWorkspace(tmp_path / "run", parameters=(1, 2))
    written.put("prep")
    written.put("sim/P.1/0/0")
    written.put("sim/P.1/0/1", FAILED)
    written.put("sim/P.2/2/0", RUNNING)
    record = run(1, str(written.path), run_status=RunStatus.COMPLETED)
    async with files_of(tmp_path, records=[record]) as (database, files):
        assert files.can_read(uid(1))
        await files.read([uid(1)])
        observation = database.observations.run(uid(1))
        assert observation.progress is not None
        assert observation.progress.source is Source.WORKSPACE_FILES
        assert observation.progress.total == 16
        assert observation.progress.counts == {
            TaskStatus.SUCCEEDED: 2,
            TaskStatus.FAILED: 1,
            TaskStatus.RUNNING: 1,
            TaskStatus.WAITING: 12,
        }
        assert observation.workspace is not None
        assert [step.name for step in observation.workspace.steps] == ["prep", "sim", "post"]
        assert [task.path for step in observation.workspace.steps for task in step.tasks] == written.paths()
        failed = observation.workspace.task("sim/P.1/0/1")
        assert failed is not None
        assert (failed.status, failed.return_code, failed.run_time) == (TaskStatus.FAILED, "MERLIN_SOFT_FAIL", 2.0)
        assert (failed.parameters, failed.sample_index, failed.workers) == ({"P": 1}, 1, ("hand",))
        assert Source.WORKSPACE_FILES in database.observations.sources
