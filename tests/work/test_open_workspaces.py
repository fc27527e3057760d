"""The sources that the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.workspaces import Source
from server.open_work import open_work, sources_of
from server.settings import Settings
from server.work.progress import TaskRegister
from tests.support.live import until
from tests.support.records import run, uid
from tests.support.run_files import database_of
from tests.support.workspaces import WrittenWorkspace

pytestmark = pytest.mark.anyio


async def test_workspaces_are_read_below_the_roots(tmp_path: Path) -> None:
    """Those of `--workspace-root`, and only while the work is open."""
    written = WrittenWorkspace(tmp_path / "run")
    settings = Settings(workspace_root=(tmp_path,))
    async with database_of(tmp_path, records=[run(1, str(written.path))]) as database:
        observations = database.observations
        async with open_work(settings, database):
            await until(lambda: observations.has(Source.WORKSPACE_FILES))
            await observations.reader.read([uid(1)])
            progress = observations.run(uid(1)).progress
            assert progress is not None
            assert progress.total == 9


async def test_without_roots_no_workspace_is_read(tmp_path: Path) -> None:
    """There is no such source, and the reader can read none."""
    async with database_of(records=[run(1, str(tmp_path))]) as database:
        tasks = TaskRegister(database.read_model, database.observations)
        assert Source.WORKSPACE_FILES not in {source.source for source in sources_of(Settings(), database, tasks)}
        assert not database.observations.reader.can_read(uid(1))
