"""`merlin-graphql integrity`, as an operator or a cron job runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.database.backends.sqlite import SQLiteBackend
from server.database.models import Model
from tests.support.records import run, study, uid
from tests.support.serving import run as command

pytestmark = pytest.mark.anyio


async def database(directory: Path) -> str:
    """Of a study that names a run twice and one that is missing, and of an empty study."""
    url = f"sqlite:///{directory}/merlin.db"
    backend = SQLiteBackend(url)
    await backend.open()
    await backend.insert([study(1, runs=(uid(11), uid(11), uid(99))), run(11, study_id=uid(1)), study(2)])
    await backend.close()
    return url


async def test_problems_are_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    """One line a problem, the gravest first, a count, and exit code 1 where one is an ERROR."""
    done = command(tmp_path / "home", "integrity", "--database", await database(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert [line.split()[0] for line in lines] == ["ERROR", "ERROR", "INFO", "3"]
    assert lines[-1] == "3 problems: 2 ERROR, 1 INFO"
    assert f"ERROR DANGLING_REFERENCE: The study {uid(1)} names {uid(99)} in runs" in done.stdout


EMPTY: list[Model] = [study(2)]
NO_SUCH_PARENT: list[Model] = [study(1, runs=(uid(11),)), run(11, study_id=uid(1), parent=uid(99))]
WHOLE: list[Model] = [study(1, runs=(uid(11),)), run(11, study_id=uid(1))]


@pytest.mark.parametrize(
    ("level", "records", "severities", "code"),
    [
        (None, EMPTY, ["INFO"], 0),
        ("warning", EMPTY, ["INFO"], 0),
        ("info", EMPTY, ["INFO"], 1),
        (None, NO_SUCH_PARENT, ["WARNING"], 0),
        ("warning", NO_SUCH_PARENT, ["WARNING"], 1),
        ("info", WHOLE, [], 0),
        ("error", [run(11)], ["ERROR"], 1),
    ],
)
async def test_the_level_decides_what_makes_the_exit_code(
    tmp_path: Path, level: str | None, records: list[Model], severities: list[str], code: int
) -> None:
    """What is less grave is shown, and is no failure; without --level that is all but errors."""
    url = f"sqlite:///{tmp_path}/merlin.db"
    backend = SQLiteBackend(url)
    await backend.open()
    await backend.insert(records)
    await backend.close()
    chosen = () if level is None else ("--level", level)
    done = command(tmp_path / "home", "integrity", "--json", "--database", url, *chosen)
    assert done.returncode == code
    assert [it["severity"] for it in json.loads(done.stdout)["problems"]] == severities


async def test_repair_mends_and_tells_what_is_left(tmp_path: Path) -> None:
    """What can be mended is, and the exit code is that of what is left; then there is nothing more to mend."""
    url = await database(tmp_path)
    done = command(tmp_path / "home", "integrity", "--repair", "--json", "--database", url)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert sorted(it["kind"] for it in told["repaired"]) == ["DANGLING_REFERENCE", "DUPLICATE_REFERENCE"]
    assert [(it["kind"], it["severity"], it["entityKind"], it["entityId"]) for it in told["problems"]] == [
        ("EMPTY_STUDY", "INFO", "STUDY", uid(2))
    ]
    again = command(tmp_path / "home", "integrity", "--repair", "--json", "--database", url)
    assert json.loads(again.stdout)["repaired"] == []


async def test_only_the_kinds_asked_for_count(tmp_path: Path) -> None:
    """With --kinds the report and the exit code are of those kinds."""
    url = await database(tmp_path)
    clean = command(tmp_path / "home", "integrity", "--database", url, "--kinds", "ORPHAN_WORKER", "UNREADABLE_VALUE")
    assert (clean.returncode, clean.stdout) == (0, "0 problems\n")
    wrong = command(tmp_path / "home", "integrity", "--kinds", "NONSENSE")
    assert wrong.returncode == 2
    assert "invalid choice: 'NONSENSE'" in wrong.stderr


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """An unreachable database is one line on stderr and exit code 1."""
    done = command(tmp_path / "home", "integrity", "--database", "redis://127.0.0.1:1/0")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    """A mistyped path, or a machine without Merlin, is an error and no empty database without problems."""
    for arguments in (("--database", f"sqlite:///{tmp_path}/typo.db"), ()):
        done = command(tmp_path / "home", "integrity", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("merlin-graphql: There is no database ")
    assert not list(tmp_path.rglob("*.db"))


async def test_what_is_mended_of_a_run_is_also_mended_in_merlins_file(tmp_path: Path) -> None:
    """Below a root; one that is no directory is refused before anything is mended."""
    workspace = tmp_path / "studies" / "run"
    (workspace / "merlin_info").mkdir(parents=True)
    url = f"sqlite:///{tmp_path}/merlin.db"
    backend = SQLiteBackend(url)
    await backend.open()
    await backend.insert([study(1, runs=(uid(11),)), run(11, str(workspace), study_id=uid(1), workers=(uid(99),))])
    await backend.close()
    home, repair = tmp_path / "home", ("integrity", "--repair", "--database", url, "--workspace-root")
    refused = command(home, *repair, str(tmp_path / "nothing"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "is not a directory here" in refused.stderr
    assert command(home, *repair, str(tmp_path / "studies")).returncode == 0
    assert json.loads((workspace / "merlin_info" / "run_metadata.json").read_text())["workers"] == []
