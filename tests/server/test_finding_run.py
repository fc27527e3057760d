"""The run that a user of the shell means: whatever names it in their hands, and no other one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.commands.asking import OpenedDatabase
from server.commands.finding_run import find_run, named_run
from server.database.merlin_database import opened
from server.errors import UsageError
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the workspaces of two runs; another one is in two places."""
    directory = tmp_path / "studies"
    for name in ("hello_20261125-160110", "hello_20261124-110000", "both"):
        (directory / name / "merlin_info").mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
async def asked(studies: Path) -> AsyncIterator[OpenedDatabase]:
    store = await memory_of(
        study(1, "hello", runs=(uid(11), uid(12))),
        study(2, "empty"),
        study(3, "both", runs=(uid(14),)),
        run(11, f"{studies}/hello_20261124-110000", study_id=uid(1)),
        run(12, f"{studies}/hello_20261125-160110", study_id=uid(1)),
        run(13, f"{studies}/both"),
        run(14, "/elsewhere/both_20261125-160110", study_id=uid(3)),
        run(15, "/elsewhere/twice"),
        run(16, "/other/twice"),
        run(17, f"{studies}/alias"),
    )
    async with opened(store) as database:
        yield OpenedDatabase(database, [])


async def test_a_run_is_found_by_all_that_names_it(asked: OpenedDatabase, studies: Path) -> None:
    """Its id, its path however it is written, a link to it, the name of its directory, and its study if it is the
    latest run of that."""
    (studies / "link").symlink_to("hello_20261125-160110")
    names = [
        uid(12),
        f"{studies}/hello_20261125-160110",
        f"{studies}/hello_20261125-160110/",
        "hello_20261125-160110",
        "./hello_20261125-160110/",
        "../studies/hello_20261124-110000/../hello_20261125-160110",
        "link",
        "hello",
    ]
    assert [await find_run(asked, named_run(name)) for name in names] == [uid(12)] * len(names)
    assert await find_run(asked, named_run("hello_20261124-110000")) == uid(11)
    assert await find_run(asked, named_run("both_20261125-160110")) == uid(14)
    assert await find_run(asked, named_run("./both")) == uid(13)


async def test_the_workspace_may_be_the_working_directory(
    asked: OpenedDatabase, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dot is enough."""
    monkeypatch.chdir(studies / "hello_20261125-160110")
    assert await find_run(asked, named_run(".")) == uid(12)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "There is no run 'nothing' in the database: pass a workspace, a study or the id of a run."),
        ("./hello", "There is no run './hello' in the database: pass a workspace, a study or the id of a run."),
        ("spec.yaml", "There is no run 'spec.yaml' in the database: pass its workspace instead of a file."),
        ("empty", "The study 'empty' has no runs."),
        ("both", "'both' is a study, and also a workspace: pass ./both for the workspace, or the id of a run."),
        ("twice", "The workspaces of several runs are called 'twice': pass the whole path."),
        ("", "There is no run '' in the database: pass a workspace, a study or the id of a run."),
        (uid(99), f"There is no run '{uid(99)}' in the database: pass a workspace, a study or the id of a run."),
    ],
)
async def test_what_names_no_run_or_several_is_told(asked: OpenedDatabase, studies: Path, name: str, says: str) -> None:
    """With what to pass instead."""
    (studies / "spec.yaml").touch()
    with pytest.raises(UsageError) as raised:
        await find_run(asked, named_run(name))
    assert str(raised.value) == says


async def test_a_path_that_leads_to_two_workspaces_is_ambiguous(asked: OpenedDatabase, studies: Path) -> None:
    """Such as a link to one workspace, which Merlin has once recorded as another."""
    (studies / "alias").symlink_to("hello_20261125-160110")
    with pytest.raises(UsageError) as raised:
        await find_run(asked, named_run("alias"))
    assert str(raised.value) == f"'alias' leads to several workspaces: pass the id of a run: {uid(12)} or {uid(17)}."
