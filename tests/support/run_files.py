"""What the tests of Merlin's files share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.database.backends.base import ResultsBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import RunModel
from tests.support.records import memory_of, run, study, uid

UPDATE = """mutation ($input: UpdateRunInput!) { updateRun(input: $input) {
  run { id } overwrittenByMerlin userErrors { code } } }"""
CREATE = """mutation ($input: CreateRunInput!) { createRun(input: $input) {
  run { id } overwrittenByMerlin userErrors { code } } }"""


def file_of(workspace: Path) -> Path:
    return workspace / "merlin_info" / "run_metadata.json"


def content(workspace: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file_of(workspace).read_text())
    return read


@asynccontextmanager
async def database_of(*roots: Path, records: Sequence[RunModel]) -> AsyncIterator[MerlinDatabase]:
    backend: ResultsBackend = await memory_of(study(1), *records)
    async with opened(backend, workspace_roots=roots) as database:
        yield database


def runs_below(root: Path, number: int = 1, **fields: Any) -> list[RunModel]:
    """With the directories for their files."""
    records = [run(each + 10, str(root / f"run_{each}"), study_id=uid(1), **fields) for each in range(number)]
    for record in records:
        (Path(record.workspace) / "merlin_info").mkdir(parents=True)
    return records
