"""The recipes for pandas and notebooks in docs/clients.md, as they are written there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.notebook import Notebook
from tests.support.pages import block
from tests.support.workspaces import FAILED, WrittenWorkspace

PAGE = "docs/clients.md"


@pytest.fixture(autouse=True)
def functions(notebook: Notebook) -> Iterator[None]:
    """Those of the section about httpx."""
    for has in ("class MerlinError", "def nodes(", "def create_run("):
        notebook.run(block(PAGE, has, "python"))
    yield
    notebook.names["merlin"].close()


def test_a_frame_has_all_runs_with_their_types(notebook: Notebook) -> None:
    """Times with a zone, lengths of time, categories; and it answers questions."""
    notebook.run(block(PAGE, "pd.crosstab(", "python"))
    names = notebook.names
    runs, ask = names["runs"], names["ask"]
    assert len(runs) == ask("{ database { runs } }")["database"]["runs"]
    assert [str(runs.dtypes[name])[-5:] for name in ("launchedAt", "finishedAt")] == [" UTC]", " UTC]"]
    assert [str(runs.dtypes[name]) for name in ("status", "study.name")] == ["category", "category"]
    assert str(runs.dtypes["duration"]).startswith("timedelta64")
    counts = {row["status"]: row["count"] for row in ask("{ runCounts { status count } }")["runCounts"] if row["count"]}
    assert names["by_study"].sum().to_dict() == counts
    assert names["per_day"].sum() == runs["launchedAt"].notna().sum()


def test_frames_follow_relations(notebook: Notebook) -> None:
    """A row for each worker of each run, and for each process of these, with the names of what leads to it."""
    for has in ("record_path=", "processes = pd.DataFrame("):
        notebook.run(block(PAGE, has, "python"))
    names = notebook.names
    query = """{ runs(first: 500, filter: {study: {}}) {
      nodes { id study { name } workers { name physicalWorkers(first: 500) { nodes { name } } } } } }"""
    runs = names["ask"](query)["runs"]["nodes"]
    workers = [(run["id"], run["study"]["name"], worker["name"]) for run in runs for worker in run["workers"]]
    assert rows(names["workers"], "run.id", "run.study.name", "worker.name") == workers != []
    processes = [
        (run["id"], run["study"]["name"], worker["name"], process["name"])
        for run in runs
        for worker in run["workers"]
        for process in worker["physicalWorkers"]["nodes"]
    ]
    assert rows(names["processes"], "run", "study", "worker", "name") == processes != []
    assert names["runs_of_host"].max() > 1


def rows(frame: Any, *columns: str) -> list[tuple[Any, ...]]:
    return list(frame[list(columns)].itertuples(index=False, name=None))


def test_a_frame_has_the_tasks_of_a_run(notebook: Notebook, workspaces: Path) -> None:
    """Those of its files, with whole numbers where some have none."""
    written = WrittenWorkspace(workspaces / "sampled", samples=3, parameters=[1, 2])
    for path in written.paths()[:-1]:
        written.put(path)
    written.put("post", FAILED)
    names = notebook.names
    names["create_run"](studyName="sampled", queues=["q"], workspace=str(written.path))
    notebook.run(block(PAGE, "def tasks_of(", "python"))
    tasks: Any = names["tasks_of"](str(written.path))
    assert list(tasks["step"]) == ["prep", *["sim"] * 6, "post"]
    assert tasks["sampleIndex"].dropna().tolist() == [0, 1, 2, 0, 1, 2]
    assert tasks["parameters.P"].dropna().astype(int).tolist() == [1, 1, 1, 2, 2, 2]
    assert tasks["runTime"].dt.total_seconds().tolist() == [2.0] * 8
    assert tasks.groupby("status", observed=True).size().to_dict() == {"SUCCEEDED": 7, "FAILED": 1}
