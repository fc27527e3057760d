"""A run whose study is gone: `repair` makes the study again, named as Merlin would have."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.integrity import Problem, ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import Model
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio

STAMP = "20260102-030405"
MISSING = (ProblemKind.DANGLING_REFERENCE, ProblemKind.MISSING_REFERENCE)


async def dangling(database: MerlinDatabase) -> Problem:
    (problem,) = [it for it in await database.integrity() if it.kind in MISSING]
    return problem


def workspace(root: Path, name: str, spec: str | None) -> str:
    made = root / name
    (made / "merlin_info").mkdir(parents=True)
    if spec is not None:
        (made / "merlin_info" / "hello.expanded.yaml").write_text(spec)
    return str(made)


@pytest.mark.parametrize("named", [uid(7), None])
async def test_the_study_is_made_again_under_its_id(named: str | None) -> None:
    """Named as the workspace is without its time, and linked; a run that names none gets a new one."""
    async with opened(await memory_of(run(1, f"/runs/my_study_{STAMP}/", study_id=named))) as database:
        assert (await dangling(database)).repairable
        await database.repair(database.unit())
        record = database.studies.get("my_study").record
        assert named in (None, record.id)
        assert record.runs == (uid(1),)
        assert database.runs.get(uid(1)).study_id == record.id
        assert await database.integrity() == []


async def test_runs_of_one_missing_study_share_it() -> None:
    """And those of two missing ones of one name join the first that is made, as Merlin has one study a name."""
    records = [run(number, f"/runs/s_2026010{number}-030405", study_id=uid(7 + number % 2)) for number in (1, 2, 3)]
    async with opened(await memory_of(*records)) as database:
        await database.repair(database.unit())
        (only,) = database.studies.all()
        assert set(only.record.runs) == {uid(1), uid(2), uid(3)}
        assert await database.integrity() == []


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        (f"stamped_{STAMP}", "description: {name: other}", "stamped"),
        ("plain", "description:\n  name: from the spec\n", "from the spec"),
        (f"123_{STAMP}", "description: {name: spec name}", "spec name"),
        ("plain", "description: {name: '123'}", "plain"),
        ("plain", "[broken", "plain"),
        ("plain", "description: {name: [1]}", "plain"),
        ("plain", None, "plain"),
        ("123", "name: no description", None),
        (f"true_{STAMP}", None, "true"),
        (f"True_{STAMP}", None, None),
    ],
)
async def test_the_name_comes_from_the_workspace_else_from_its_specification(
    tmp_path: Path, name: str, spec: str | None, expected: str | None
) -> None:
    """Where neither gives a name that Merlin reads back, the problem is told as one that can't be mended."""
    path = workspace(tmp_path, name, spec)
    backend = await memory_of(run(1, path, study_id=uid(7)))
    async with opened(backend, workspace_roots=[tmp_path]) as database:
        problem = await dangling(database)
        assert problem.repairable == (expected is not None)
        await database.repair(database.unit())
        assert [each.name for each in database.studies.all()] == ([] if expected is None else [expected])
        assert database.runs.get(uid(1)).study_id == uid(7)


async def test_no_specification_is_read_outside_of_the_roots(tmp_path: Path) -> None:
    """Nor by way of a symlink, nor a second one, nor one that is no file."""
    root = tmp_path / "root"
    root.mkdir()
    outside = workspace(tmp_path, "outside", "description: {name: secret}")
    (root / "linked").symlink_to(outside)
    linked_file = workspace(root, "file", None)
    Path(linked_file, "merlin_info", "x.expanded.yaml").symlink_to(Path(outside, "merlin_info", "hello.expanded.yaml"))
    two = workspace(root, "two", "description: {name: one of two}")
    Path(two, "merlin_info", "b.expanded.yaml").write_text("description: {name: two of two}")
    paths = [outside, str(root / "linked"), linked_file, two]
    records = [run(number, path, study_id=uid(100 + number)) for number, path in enumerate(paths)]
    async with opened(await memory_of(*records), workspace_roots=[root]) as database:
        await database.repair(database.unit())
        assert {each.name for each in database.studies.all()} == {"outside", "linked", "file", "two"}


async def test_a_study_that_lists_the_run_gets_it_back() -> None:
    """It is not made anew where one knows of the run."""
    records: list[Model] = [study(2, "knows", runs=(uid(1),)), run(1, f"/runs/gone_{STAMP}", study_id=uid(7))]
    async with opened(await memory_of(*records)) as database:
        await database.repair(database.unit())
        assert database.runs.get(uid(1)).study_id == uid(2)
        assert len(database.studies) == 1
        assert await database.integrity() == []
