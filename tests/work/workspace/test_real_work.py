"""Real workers at work for real Merlin, and what the files of their run say meanwhile and in the end."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import opened
from server.database.workspaces import TaskStatus, Workspace
from server.work.watching import watching
from server.work.workspace.reader import WorkspaceFiles
from tests.support.live import until
from tests.support.merlin_site import MerlinSite
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

SPEC = """
description: {{name: many, description: Tasks that end in all ways}}
batch: {{type: local}}
env: {{variables: {{OUTPUT_PATH: {output}}}}}
global.parameters: {{P: {{values: [1, 2], label: P.%%}}}}
study:
  - name: sim
    description: some fail, some are retried
    run:
      cmd: |
        echo $(P) $(X)
        case $(MERLIN_SAMPLE_ID) in
          1) exit $(MERLIN_SOFT_FAIL);;
          2) if [ ! -e tried ]; then touch tried; exit $(MERLIN_RETRY); fi;;
          3) exit $(MERLIN_RETRY);;
        esac
      max_retries: 1
      retry_delay: 0.1
      task_queue: {study}_queue
  - name: collect
    description: of all
    run: {{cmd: ls $(sim.workspace), depends: [sim_*], task_queue: {study}_queue}}
merlin:
  samples:
    generate: {{cmd: "seq 1 12 > $(MERLIN_INFO)/samples.csv"}}
    file: $(MERLIN_INFO)/samples.csv
    column_labels: [X]
    level_max_dirs: 3
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MerlinSite]:
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no redis server is installed here")
    with RedisServer.start(binary, tmp_path / "database") as server, MerlinSite(tmp_path / "home", server.url) as site:
        asyncio.run(site.work())
        yield site


async def test_what_is_told_agrees_with_what_happens(site: MerlinSite) -> None:
    """At each moment every task counts once, none that is done comes back, and the end is what the files say."""
    spec = site.spec.with_name("many.yaml")
    spec.write_text(SPEC.format(output=site.studies, study=site.study))
    async with opened(make_backend(site.url, BackendOptions()), workspace_roots=[site.studies]) as database:
        files = WorkspaceFiles(database.read_model, database.observations, [site.studies])
        async with watching(database.observations, [files]):
            ran = await site.command("run", str(spec))
            made = datetime.now(UTC)
            found = re.search(r"Study workspace is '(.+)'", ran.printed)
            assert found, ran.printed
            workspace = found[1]
            await until(lambda: any(run.workspace == workspace for run in database.read_model.runs.records.values()))
            (run_id,) = [run.id for run in database.read_model.runs.records.values() if run.workspace == workspace]
            seen: list[Workspace] = []

            def ended() -> bool:
                content = database.observations.run(run_id).workspace
                if content is None or content.as_of < made:  # as long as there are no samples, nobody knows how many
                    return False
                if not seen or content is not seen[-1]:
                    seen.append(content)
                return content.progress.fraction == 1

            await files.read([run_id])
            await until(ended)
    known: dict[str, TaskStatus] = {}
    for content in seen:
        assert sum(content.progress.counts.values()) == content.progress.total == 25
        for step in content.steps:
            for task in step.tasks:
                assert not known.get(task.path, TaskStatus.WAITING).is_done or task.status is known[task.path]
                known[task.path] = task.status
    codes = Counter(task.return_code for step in seen[-1].steps for task in step.tasks)
    assert codes == {
        "MERLIN_SUCCESS": 21,
        "MERLIN_SOFT_FAIL": 2,
        "MERLIN_SOFT_FAIL (MAX RETRIES REACHED)": 2,
    }
    assert codes == codes_in(Path(workspace))
    assert (Path(workspace) / "sim" / "P.1" / "MERLIN_STATUS.json").exists()  # they were condensed
    retried = seen[-1].task("sim/P.1/0/0/2")
    assert retried is not None
    assert (retried.status, retried.restarts, retried.parameters) == (TaskStatus.SUCCEEDED, 1, {"P": 1})
    assert retried.workers


def codes_in(workspace: Path) -> Counter[str | None]:
    """The return codes that stand in its files."""
    tasks = {
        path: task
        for file in workspace.rglob("MERLIN_STATUS.json")
        for step in json.loads(file.read_text()).values()
        for path, task in step.items()
        if isinstance(task, dict) and "status" in task
    }
    return Counter(task["return_code"] for task in tasks.values())
