"""A workspace is read to its end, and then only what changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.database.workspaces import TaskStatus, Workspace
from server.work.workspace.content import WorkspaceContent
from server.work.workspace.scanner import Scanner
from tests.support.workspaces import FAILED, RUNNING, SUCCESS, WrittenWorkspace, status_text

OLD = 1_000_000.0
"""Seconds: a time that is long ago, so that no file counts as just written."""


@pytest.fixture
def written(tmp_path: Path) -> WrittenWorkspace:
    return WrittenWorkspace(tmp_path / "run", parameters=(1, 2))


@pytest.fixture
def scanner(written: WrittenWorkspace) -> Iterator[Scanner]:
    scanner = Scanner([written.path.parent], str(written.path))
    yield scanner
    scanner.close()


def look(scanner: Scanner) -> WorkspaceContent:
    """A whole round."""
    while not scanner.advance(60.0):
        pass
    content = scanner.content()
    assert content is not None
    return content


def statuses(content: Workspace) -> dict[str, TaskStatus]:
    """Of the tasks that do not wait."""
    tasks = (task for step in content.steps for task in step.tasks)
    return {task.path: task.status for task in tasks if task.status is not TaskStatus.WAITING}


def age(path: Path) -> None:
    """It and all in it were written long ago."""
    for each in (path, *path.rglob("*")):
        os.utime(each, (OLD, OLD))


def test_a_task_goes_through_its_statuses(written: WrittenWorkspace, scanner: Scanner) -> None:
    """Each is seen, and counted once."""
    assert statuses(look(scanner)) == {}
    for entry, status in (
        (RUNNING, TaskStatus.RUNNING),
        ({**SUCCESS, "return_code": None, "restarts": 1}, TaskStatus.RETRYING),
        (RUNNING, TaskStatus.RUNNING),
        (SUCCESS, TaskStatus.SUCCEEDED),
    ):
        written.put("sim/P.1/0/0", entry)
        content = look(scanner)
        assert statuses(content) == {"sim/P.1/0/0": status}
        assert sum(content.progress.counts.values()) == content.progress.total == 16


def test_only_what_may_have_changed_is_read_again(written: WrittenWorkspace, scanner: Scanner) -> None:
    """A round over a hundred finished tasks takes some calls; one at work costs a few more."""
    for path in written.paths():
        written.put(path)
    running = written.put("sim/P.2/2/0", RUNNING)
    age(written.path)
    look(scanner)
    before = scanner.calls
    look(scanner)
    assert scanner.calls - before < 50
    running.write_text(running.read_text().replace("RUNNING", "CANCELLED"))
    assert statuses(look(scanner))["sim/P.2/2/0"] is TaskStatus.CANCELLED


def test_an_unchanged_content_is_not_told_again(written: WrittenWorkspace, scanner: Scanner) -> None:
    """Nor is anything told before the first round has ended."""
    written.put("prep")
    look(scanner)
    assert scanner.take_content() is not None
    look(scanner)
    assert scanner.take_content() is None
    written.put("post", RUNNING)
    look(scanner)
    assert scanner.take_content() is not None


def test_a_cut_file_keeps_what_was_known(written: WrittenWorkspace, scanner: Scanner) -> None:
    """And is read again."""
    file = written.put("prep", RUNNING)
    look(scanner)
    whole = file.read_text()
    file.write_text(whole[:50])
    assert statuses(look(scanner)) == {"prep": TaskStatus.RUNNING}
    file.write_text("")
    assert statuses(look(scanner)) == {"prep": TaskStatus.RUNNING}
    file.write_text(whole.replace("RUNNING", "CANCELLED"))
    assert statuses(look(scanner)) == {"prep": TaskStatus.CANCELLED}
    assert scanner.problems == []


def test_a_condensed_task_counts_once(written: WrittenWorkspace, scanner: Scanner) -> None:
    """Whether it stands in both files, in one, or for a moment in none."""
    paths = ["sim/P.1/0/0", "sim/P.1/0/1"]
    for path in paths:
        written.put(path, RUNNING)
    look(scanner)
    written.condense("sim/P.1", paths)
    written.put(paths[0], RUNNING)
    assert statuses(look(scanner)) == {paths[0]: TaskStatus.RUNNING, paths[1]: TaskStatus.SUCCEEDED}
    (written.path / paths[0] / "MERLIN_STATUS.json").unlink()
    condensed = written.path / "sim/P.1/MERLIN_STATUS.json"
    text = condensed.read_text()
    condensed.unlink()
    assert statuses(look(scanner)) == {paths[0]: TaskStatus.RUNNING, paths[1]: TaskStatus.SUCCEEDED}
    condensed.write_text(text)
    content = look(scanner)
    while statuses(content)[paths[0]] is TaskStatus.RUNNING:  # such a file is not read all the time
        content = look(scanner)
    assert content.progress.counts == {TaskStatus.SUCCEEDED: 2, TaskStatus.WAITING: 14}


def test_a_failed_task_that_was_condensed_may_be_at_work_again(written: WrittenWorkspace, scanner: Scanner) -> None:
    """After `merlin restart`: its own file is the later one."""
    written.condense("sim/P.1", ["sim/P.1/0/0", "sim/P.1/0/1"], FAILED)
    written.put("sim/P.1/0/0", RUNNING)
    assert statuses(look(scanner)) == {"sim/P.1/0/0": TaskStatus.RUNNING, "sim/P.1/0/1": TaskStatus.FAILED}


def test_tasks_that_were_not_foreseen_are_found(written: WrittenWorkspace, scanner: Scanner) -> None:
    """A combination that the specification has not; but no nested run, and nothing inside of a task."""
    written.put("sim/P.9/0/0")
    written.put("sim/P.1/0/0/deeper")
    written.put("sim/inner_20261126-120000/prep")
    written.put("elsewhere")
    content = look(scanner)
    assert statuses(content) == {"sim/P.9/0/0": TaskStatus.SUCCEEDED}
    task = content.task("sim/P.9/0/0")
    assert task is not None
    assert (task.step, task.sample_index) == ("sim", None)
    assert content.task("elsewhere") is None
    assert content.progress.total == 17


def test_without_a_number_of_samples_tasks_are_found_all_the_same(written: WrittenWorkspace, scanner: Scanner) -> None:
    """The total is unknown until the file of samples can be read."""
    rows = written.path / "merlin_info" / "samples.csv"
    text = rows.read_text()
    rows.unlink()
    written.put("sim/P.1/0/1")
    content = look(scanner)
    assert statuses(content) == {"sim/P.1/0/1": TaskStatus.SUCCEEDED}
    assert (content.progress.total, content.progress.fraction, content.sample_count) == (None, None, None)
    rows.write_text(text)
    assert look(scanner).progress.total == 16


def test_samples_may_lie_in_a_root_itself(written: WrittenWorkspace, scanner: Scanner) -> None:
    """As a file beside the workspaces."""
    rows = written.path / "merlin_info" / "samples.csv"
    rows.rename(written.path.parent / "beside.csv")
    written.spec["merlin"]["samples"]["file"] = str(written.path.parent / "beside.csv")
    written.write_spec()
    assert look(scanner).sample_count == 7


def test_what_changed_is_named(written: WrittenWorkspace, scanner: Scanner) -> None:
    """Between any two contents of a run; unless its specification changed."""
    first = look(scanner)
    written.put("sim/P.1/0/0", RUNNING)
    written.put("sim/P.2/2/0")
    second = look(scanner)
    written.put("sim/P.1/0/0")
    written.put("sim/P.7/0")
    third = look(scanner)
    assert second.changed_since(first) == ["sim/P.1/0/0", "sim/P.2/2/0"]
    assert third.changed_since(second) == ["sim/P.1/0/0", "sim/P.7/0"]
    assert third.changed_since(first) == ["sim/P.1/0/0", "sim/P.2/2/0", "sim/P.7/0"]
    assert third.changed_since(third) == []
    written.spec["study"][0]["description"] = "another"
    written.write_spec()
    assert look(scanner).changed_since(third) is None


def test_run_times_are_of_tasks_that_are_done(written: WrittenWorkspace, scanner: Scanner) -> None:
    """Their mean, deviation, least and most."""
    for sample, seconds in enumerate((2, 4, 6)):
        written.put(f"sim/P.1/0/{sample}", {**SUCCESS, "run_time": f"0d:00h:00m:0{seconds}s"})
    written.put("sim/P.2/0/0", RUNNING)
    prep, sim, _ = look(scanner).steps
    assert prep.run_time is None
    assert sim.run_time is not None
    mean, deviation, least, most = sim.run_time
    assert (mean, round(deviation, 3), least, most) == (4.0, 1.633, 2.0, 6.0)


def test_a_round_goes_on_where_it_stopped(written: WrittenWorkspace, scanner: Scanner) -> None:
    """In slices as short as may be, it ends with the same."""
    for path in written.paths():
        written.put(path)
    slices = 1
    while not scanner.advance(0.0):
        slices += 1
    content = scanner.content()
    assert slices > 10
    assert content is not None
    assert set(statuses(content)) == set(written.paths())


moves = st.lists(st.tuples(st.sampled_from(["run", "end", "fail", "condense", "look"]), st.integers(0, 6)), max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves)
def test_any_history_ends_with_the_truth(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    """Whatever was seen of it on the way: tasks run, end and are condensed in any order."""
    written = WrittenWorkspace(tmp_path_factory.mktemp("history") / "run")
    scanner = Scanner([written.path.parent], str(written.path))
    truth: dict[str, TaskStatus] = {}
    own: set[str] = set()
    entries = {"run": RUNNING, "end": SUCCESS, "fail": FAILED}
    for move, sample in moves:
        path = f"sim/{written.samples.path(sample)}"
        if move == "look":
            look(scanner)
        elif move == "condense":
            done = sorted(path for path in own if truth[path].is_done)
            for failed in (False, True):
                some = [path for path in done if (truth[path] is TaskStatus.FAILED) is failed]
                if some:
                    written.condense("sim", some, FAILED if failed else SUCCESS)
            own -= set(done)
        elif not truth.get(path, TaskStatus.WAITING).is_done:
            written.put(path, entries[move])
            own.add(path)
            truth[path] = {"run": TaskStatus.RUNNING, "end": TaskStatus.SUCCEEDED, "fail": TaskStatus.FAILED}[move]
    for _ in range(2000):
        content = look(scanner)
        if statuses(content) == truth:
            break
    assert statuses(content) == truth
    assert sum(content.progress.counts.values()) == content.progress.total == 9
    scanner.close()


def test_an_unforeseen_single_sample_is_one_task(written: WrittenWorkspace, scanner: Scanner) -> None:
    """Merlin ends the path of a single sample with a slash."""
    for combination in ("P.8", "P.9"):
        file = written.directory(f"sim/{combination}") / "MERLIN_STATUS.json"
        file.write_text(status_text({f"sim/{combination}/": SUCCESS}))
    assert statuses(look(scanner)) == {"sim/P.8": TaskStatus.SUCCEEDED, "sim/P.9": TaskStatus.SUCCEEDED}
