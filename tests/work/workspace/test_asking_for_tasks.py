"""What clients are told of tasks whose files lie in a workspace, from the files to the response."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.models import RunStatus
from server.database.run_tasks import task_id
from server.database.workspaces import HasColumns, Task
from tests.support.asking import ask
from tests.support.records import run, uid
from tests.support.subscribers import subscribed
from tests.support.workspaces import FAILED, RUNNING, WrittenWorkspace, files_of

pytestmark = pytest.mark.anyio

RUN = uid(1)
BOARD = """
query ($run: ID!) {
  run(id: $run) {
    progress { total done failed source }
    stepRuns { name dependsOn usesSamples progress { total done } runTime { mean } }
    tasks(filter: {status: {eq: FAILED}}) {
      totalCount nodes { id path returnCode parameters sampleIndex workers runTime output { text isWhole } }
    }
    parameterValues sampleColumns sampleCount
  }
}
"""


async def test_the_first_question_reads_the_files(tmp_path: Path) -> None:
    """And gives all that a status board needs at once."""
    written = WrittenWorkspace(tmp_path / "run", parameters=(1, 2))
    written.put("prep")
    written.put("sim/P.1/0/1", FAILED)
    written.put("sim/P.2/2/0", RUNNING)
    (written.directory("sim/P.1/0/1") / "sim_P.1.out").write_text("went wrong")
    record = run(1, str(written.path), run_status=RunStatus.RUNNING)
    async with files_of(tmp_path, records=[record]) as (database, _):
        told = (await ask(database, BOARD, run=RUN))["run"]
    assert told["progress"] == {"total": 16, "done": 2, "failed": 1, "source": "WORKSPACE_FILES"}
    assert [(step["name"], step["progress"]) for step in told["stepRuns"]] == [
        ("prep", {"total": 1, "done": 1}),
        ("sim", {"total": 14, "done": 1}),
        ("post", {"total": 1, "done": 0}),
    ]
    assert told["tasks"] == {
        "totalCount": 1,
        "nodes": [
            {
                "id": task_id(RUN, "sim/P.1/0/1"),
                "path": "sim/P.1/0/1",
                "returnCode": "MERLIN_SOFT_FAIL",
                "parameters": {"P": 1},
                "sampleIndex": 1,
                "workers": ["hand"],
                "runTime": 2.0,
                "output": {"text": "went wrong", "isWhole": True},
            }
        ],
    }
    assert (told["parameterValues"], told["sampleColumns"], told["sampleCount"]) == ({"P": [1, 2]}, ["X", "Y"], 7)


async def test_the_first_question_reads_the_samples_too(tmp_path: Path) -> None:
    """Some rows of them, or the first ones."""
    written = WrittenWorkspace(tmp_path / "run")
    document = "query ($run: ID!) { run(id: $run) { some: sampleRows(first: 2, offset: 4) all: sampleRows } }"
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (database, _):
        told = (await ask(database, document, run=RUN))["run"]
    every = [[str(number), str(number)] for number in range(7)]
    assert told == {"some": every[4:6], "all": every}


async def test_a_subscriber_hears_of_a_task_that_ends(tmp_path: Path) -> None:
    """From the file that Merlin writes."""
    written = WrittenWorkspace(tmp_path / "run")
    written.put("prep", RUNNING)
    document = "subscription ($run: ID!) { taskChanges(runId: $run) { kind task { path status } } }"
    record = run(1, str(written.path), run_status=RunStatus.RUNNING)
    async with files_of(tmp_path, records=[record]) as (database, _), subscribed(database, document, run=RUN) as one:
        assert await one.read() == []
        while database.observations.run(RUN).workspace is None:
            await database.observations.notifier.next.wait()
        assert await one.read() == []
        written.put("prep", FAILED)
        change = (await one.wait())["data"]["taskChanges"]
        assert change == {"kind": "UPDATED", "task": {"path": "prep", "status": "FAILED"}}


async def test_columns_are_what_tasks_say(tmp_path: Path) -> None:
    """Also of tasks that the specification does not foresee, and of parameters that many have."""
    written = WrittenWorkspace(tmp_path / "run", parameters=(1, 2))
    written.put("sim/P.1/0/1", FAILED)
    written.put("sim/P.2/2/0", RUNNING)
    written.put("sim/P.9/0/0", FAILED)
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (database, files):
        await files.read([RUN])
        workspace = database.observations.run(RUN).workspace
    assert workspace is not None
    for step in workspace.steps:
        assert isinstance(step.tasks, HasColumns)
        for name in Task._fields:
            assert list(step.tasks.column(name)) == [getattr(task, name) for task in step.tasks], name
        counted = list(step.tasks.combinations())
        assert [one for count, one in counted for _ in range(count)] == [task.parameters for task in step.tasks]


async def test_tasks_are_found_by_their_parameters(tmp_path: Path) -> None:
    """Of the combination, in each step that uses the parameter; also the one that the specification lacks."""
    written = WrittenWorkspace(tmp_path / "run", parameters=(1, 2))
    written.put("sim/P.2/2/0", FAILED)
    written.put("sim/P.2/9/9", FAILED)
    text = """
    query ($run: ID!, $filter: TaskFilter) {
      run(id: $run) {
        tasks(filter: $filter, orderBy: {field: SEVERITY, direction: DESC}) { nodes { path } }
        stepRuns { tasks(filter: $filter) { totalCount } }
      }
    }"""
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (database, _):
        told = (await ask(database, text, run=RUN, filter={"parameter": {"key": "P", "eq": 2}}))["run"]
        absent = (await ask(database, text, run=RUN, filter={"parameter": {"key": "P", "eq": None}}))["run"]
    paths = [node["path"] for node in told["tasks"]["nodes"]]
    assert paths[:2] == ["sim/P.2/2/0", "sim/P.2/9/9"]
    assert paths[2:] == [path for path in written.paths() if "P.2" in path and path not in paths[:2]]
    assert [step["tasks"]["totalCount"] for step in told["stepRuns"]] == [0, len(paths), 0]
    assert [node["path"] for node in absent["tasks"]["nodes"]] == ["prep", "post"]
