"""Workspaces as Merlin writes them, made without Merlin: of any size, and in any state."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from server.database.merlin_database import MerlinDatabase
from server.database.models import RunModel
from server.work.watching import watching
from server.work.workspace.reader import WorkspaceFiles
from server.work.workspace.sample_paths import SamplePaths
from tests.support.run_files import database_of

SUCCESS: Mapping[str, Any] = {
    "status": "FINISHED",
    "return_code": "MERLIN_SUCCESS",
    "elapsed_time": "0d:00h:00m:03s",
    "run_time": "0d:00h:00m:02s",
    "restarts": 0,
    "workers": ["hand"],
}
RUNNING: Mapping[str, Any] = {
    **SUCCESS,
    "status": "RUNNING",
    "return_code": None,
    "elapsed_time": "0d:23h:59m:59s",
    "run_time": "--:--:--",
}
FAILED: Mapping[str, Any] = {**SUCCESS, "status": "FAILED", "return_code": "MERLIN_SOFT_FAIL"}


class WrittenWorkspace:
    """A step `sim` with samples between `prep` and `post`, for each value of the parameter P, if there is one."""

    def __init__(
        self, path: Path, samples: int = 7, *, level_max_dirs: int = 3, parameters: Sequence[int] = (), **step: Any
    ) -> None:
        self.path = path
        self.samples = SamplePaths.of(samples, level_max_dirs)
        self.parameters = parameters
        info = path / "merlin_info"
        info.mkdir(parents=True)
        rows = info / "samples.csv"
        rows.write_text("".join(f"{number},{number}\n" for number in range(samples)))
        command = "echo $(X) $(P)" if parameters else "echo $(X)"
        self.spec: dict[str, Any] = {
            "description": {"name": path.name, "description": "written by a test"},
            "study": [
                {"name": "prep", "description": "first", "run": {"cmd": "echo", "task_queue": "q"}},
                {"name": "sim", "description": "many", "run": {"cmd": command, "depends": ["prep"], **step}},
                {"name": "post", "description": "last", "run": {"cmd": "echo", "depends": ["sim_*"]}},
            ],
            "merlin": {
                "samples": {"file": str(rows), "column_labels": ["X", "Y"], "level_max_dirs": level_max_dirs},
            },
        }
        if parameters:
            self.spec["global.parameters"] = {"P": {"values": list(parameters), "label": "P.%%"}}
        self.spec_file = info / "study.expanded.yaml"
        self.write_spec()

    def write_spec(self) -> None:
        self.spec_file.write_text(yaml.safe_dump(self.spec))

    def groups(self) -> list[str]:
        """The directories of the combinations of `sim`."""
        return [f"sim/P.{value}" for value in self.parameters] or ["sim"]

    def paths(self) -> list[str]:
        """Of all tasks, in their order."""
        samples = [self.samples.path(number) for number in range(self.samples.count)]
        inner = [f"{group}/{sample}" if sample else group for group in self.groups() for sample in samples]
        return ["prep", *inner, "post"]

    def directory(self, path: str) -> Path:
        directory = self.path / path
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def put(self, path: str, entry: Mapping[str, Any] = SUCCESS) -> Path:
        """The task's own file, as Merlin's `write_status` leaves it."""
        file = self.directory(path) / "MERLIN_STATUS.json"
        file.write_text(status_text({path: entry}))
        return file

    def condense(self, group: str, paths: Iterable[str], entry: Mapping[str, Any] = SUCCESS) -> Path:
        """Their entries in the file of their group, their own files removed."""
        paths = list(paths)
        file = self.directory(group) / "MERLIN_STATUS.json"
        before = next(iter(json.loads(file.read_text()).values())) if file.exists() else {}
        file.write_text(status_text({**before, **dict.fromkeys(paths, entry)}))
        for path in paths:
            (self.directory(path) / "MERLIN_STATUS.json").unlink(missing_ok=True)
        return file


def status_text(tasks: Mapping[str, Any]) -> str:
    return json.dumps({"full_name": {"parameters": {"cmd": None, "restart": None}, "task_queue": "q", **tasks}})


@asynccontextmanager
async def files_of(
    *roots: Path, records: Sequence[RunModel], **options: Any
) -> AsyncIterator[tuple[MerlinDatabase, WorkspaceFiles]]:
    """A database of these runs, and the source that reads their workspaces."""
    async with database_of(*roots, records=records) as database:
        files = WorkspaceFiles(database.read_model, database.observations, roots, **options)
        database.observations.reader = files
        async with watching(database.observations, [files]):
            yield database, files
