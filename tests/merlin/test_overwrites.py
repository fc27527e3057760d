"""docs/beside-merlin.md says what really happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import opened
from tests.support.live import until
from tests.support.merlin_site import MerlinSite
from tests.support.overwrites import on_the_page, tables
from tests.support.servers import RedisServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("redis_server", ["redis", pytest.param("valkey", marks=pytest.mark.soak)], indirect=True),
]


async def test_the_page_says_who_overwrites_what(redis_server: RedisServer, tmp_path: Path) -> None:
    """The tables are what real Merlin does; `python -m tests.support.overwrites --write` writes them anew."""
    with MerlinSite(tmp_path / "home", redis_server.url) as site:
        assert (await tables(site)).strip() == on_the_page()


async def test_a_deleted_worker_ends_merlins_monitor(redis_server: RedisServer, tmp_path: Path) -> None:
    """Without a root: the run's next status brings its id back, which leads nowhere."""
    with MerlinSite(tmp_path / "home", redis_server.url) as site:
        run = await site.run()
        async with opened(make_backend(site.url, BackendOptions())) as database:
            await until(lambda: len(database.runs) == 1 and len(database.logical_workers) == 1)
            (worker,) = database.logical_workers.get_all()
            await database.logical_workers.delete(worker.id, force=True)
            (queued,) = database.runs.get_all()
            assert queued.record.workers == ()
            await site.change_status(run.workspace, "RUNNING")
            await until(lambda: database.runs.get(queued.id).record.workers == (worker.id,))
        monitor = await site.command("monitor", str(site.spec), "--sleep", "1")
        assert monitor.code == 1
        assert f"{worker.id} not found" in monitor.errors[-1]
