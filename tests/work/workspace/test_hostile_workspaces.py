"""Workspaces that somebody made to do harm: nothing hangs, nothing leads out, nothing leaks, and all of it is told."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.database.workspaces import LogStream, TaskStatus
from server.work.workspace.content import WorkspaceContent
from server.work.workspace.logs import LogFile, read_on, read_tail
from server.work.workspace.scanner import Scanner
from tests.support.workspaces import SUCCESS, WrittenWorkspace, status_text

OLD = 1_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory with a status file that nobody is to read."""
    other = tmp_path / "outside"
    other.mkdir()
    secret = other / "MERLIN_STATUS.json"
    secret.write_text(status_text({"secret": {**SUCCESS, "workers": ["secret"]}}))
    os.utime(secret, (OLD, OLD))
    return other


@pytest.fixture
def written(root: Path) -> WrittenWorkspace:
    written = WrittenWorkspace(root / "run")
    written.put("prep")
    return written


@pytest.fixture(autouse=True)
def _no_leak() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def descriptors() -> int:
    """How many files are open; the one with which they are counted is, too."""
    return len(list(Path("/proc/self/fd").iterdir()))


def scan(written: WrittenWorkspace, *, rounds: int = 1) -> tuple[WorkspaceContent | None, list[str]]:
    """What is known after that, and what was told."""
    scanner = Scanner([written.path.parent], str(written.path))
    for _ in range(rounds):
        while not scanner.advance(60.0):
            pass
    scanner.close()
    return scanner.content(), scanner.problems


def link_directory(written: WrittenWorkspace, outside: Path) -> None:
    (written.path / "post").symlink_to(outside)


def link_sample(written: WrittenWorkspace, outside: Path) -> None:
    (written.directory("sim/0") / "0").symlink_to(outside)


def link_file(written: WrittenWorkspace, outside: Path) -> None:
    (written.directory("post") / "MERLIN_STATUS.json").symlink_to(outside / "MERLIN_STATUS.json")


def link_condensed(written: WrittenWorkspace, outside: Path) -> None:
    (written.directory("sim") / "MERLIN_STATUS.json").symlink_to(outside / "MERLIN_STATUS.json")


def fifo(written: WrittenWorkspace, outside: Path) -> None:
    os.mkfifo(written.directory("post") / "MERLIN_STATUS.json")


def condensed_fifo(written: WrittenWorkspace, outside: Path) -> None:
    os.mkfifo(written.directory("sim") / "MERLIN_STATUS.json")


def directory_for_file(written: WrittenWorkspace, outside: Path) -> None:
    written.directory("post/MERLIN_STATUS.json")


def garbage(written: WrittenWorkspace, outside: Path) -> None:
    file = written.directory("post") / "MERLIN_STATUS.json"
    file.write_bytes(os.urandom(5000))
    os.utime(file, (OLD, OLD))


def condensed_garbage(written: WrittenWorkspace, outside: Path) -> None:
    file = written.directory("sim") / "MERLIN_STATUS.json"
    file.write_bytes(b'"a": {"status": ' * 100_000)
    os.utime(file, (OLD, OLD))


def deep_garbage(written: WrittenWorkspace, outside: Path) -> None:
    file = written.directory("post") / "MERLIN_STATUS.json"
    file.write_text("[" * 60_000)
    os.utime(file, (OLD, OLD))


def huge(written: WrittenWorkspace, outside: Path) -> None:
    for step in ("post", "sim"):
        with (written.directory(step) / "MERLIN_STATUS.json").open("wb") as file:
            file.truncate(10 * 2**30)


def another_file(written: WrittenWorkspace, outside: Path) -> None:
    (written.path / "merlin_info" / "other.expanded.yaml").write_text("study: []")


@pytest.mark.parametrize(
    "harm",
    [
        link_file,
        link_condensed,
        fifo,
        condensed_fifo,
        directory_for_file,
        garbage,
        condensed_garbage,
        deep_garbage,
        huge,
    ],
)
def test_what_is_no_status_file_is_told_and_left(
    written: WrittenWorkspace, outside: Path, harm: Callable[[WrittenWorkspace, Path], None]
) -> None:
    """All else is read, and a second round is no worse."""
    harm(written, outside)
    began = time.monotonic()
    content, told = scan(written, rounds=2)
    assert time.monotonic() - began < 20
    assert content is not None
    assert content.progress.counts == {TaskStatus.SUCCEEDED: 1, TaskStatus.WAITING: 8}
    assert len(told) in {1, 2}
    assert all("MERLIN_STATUS.json" in problem for problem in told)


@pytest.mark.parametrize("harm", [link_directory, link_sample])
def test_links_to_directories_are_not_there(
    written: WrittenWorkspace, outside: Path, harm: Callable[[WrittenWorkspace, Path], None]
) -> None:
    """Neither steps nor samples."""
    harm(written, outside)
    content, _ = scan(written)
    assert content is not None
    assert content.progress.counts == {TaskStatus.SUCCEEDED: 1, TaskStatus.WAITING: 8}


def test_an_entry_names_no_task_of_another_directory(written: WrittenWorkspace) -> None:
    """Whatever a file in one step says of another one, or of a path that leads out."""
    paths = ["post", "../outside", "sim/../post", "/etc/passwd", "sim/../../x"]
    (written.directory("sim") / "MERLIN_STATUS.json").write_text(status_text(dict.fromkeys(paths, SUCCESS)))
    content, _ = scan(written)
    assert content is not None
    post = content.task("post")
    assert post is not None
    assert post.status is TaskStatus.WAITING
    assert [task.path for task in content.steps[1].tasks if task.status is not TaskStatus.WAITING] == []


def test_two_specifications_are_none(written: WrittenWorkspace, outside: Path) -> None:
    """Which is told."""
    another_file(written, outside)
    content, told = scan(written)
    assert content is None
    assert told == ["2 files are named *.expanded.yaml, not one"]


def test_a_specification_that_is_a_fifo_or_a_link_is_none(written: WrittenWorkspace, outside: Path) -> None:
    """Nobody waits for its writer."""
    written.spec_file.unlink()
    os.mkfifo(written.spec_file)
    content, told = scan(written)
    assert (content, len(told)) == (None, 1)
    written.spec_file.unlink()
    written.spec_file.symlink_to(outside / "MERLIN_STATUS.json")
    content, told = scan(written)
    assert (content, len(told)) == (None, 1)


def test_a_samples_file_outside_is_not_counted(written: WrittenWorkspace, outside: Path) -> None:
    """Nor one that is a link to it."""
    (outside / "samples.csv").write_text("1\n2\n3\n")
    rows = written.path / "merlin_info" / "samples.csv"
    rows.unlink()
    rows.symlink_to(outside / "samples.csv")
    written.spec["merlin"]["samples"]["file"] = str(outside / "samples.csv")
    written.write_spec()
    os.utime(written.spec_file, (OLD, OLD))
    content, told = scan(written)
    assert content is not None
    assert content.sample_count is None
    assert "the file of samples: outside of the workspace roots" in told


def test_a_workspace_outside_of_the_roots_is_not_read(root: Path, outside: Path) -> None:
    """Also where a link below a root leads to it."""
    written = WrittenWorkspace(outside / "run")
    (root / "run").symlink_to(written.path)
    scanner = Scanner([root], str(root / "run"))
    assert scanner.advance(60.0)
    assert scanner.content() is None
    assert scanner.absence == "it lies below none of the workspace roots"


def test_reading_leaves_no_trace(written: WrittenWorkspace) -> None:
    """No lock, no file, no new time."""
    for path in written.paths():
        written.put(path)
    before = {path: path.lstat().st_mtime_ns for path in written.path.rglob("*")}
    scan(written, rounds=2)
    assert {path: path.lstat().st_mtime_ns for path in written.path.rglob("*")} == before


def test_a_workspace_that_is_gone_keeps_what_was_known(written: WrittenWorkspace) -> None:
    """And is told."""
    scanner = Scanner([written.path.parent], str(written.path))
    scanner.advance(60.0)
    written.path.rename(written.path.with_name("moved"))
    scanner.advance(60.0)
    content = scanner.content()
    assert content is not None
    assert content.progress.done == 1
    assert scanner.absence == "No such file or directory"
    scanner.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_ones_are_told(written: WrittenWorkspace) -> None:
    """Files and directories of somebody else."""
    written.put("post").chmod(0)
    written.directory("sim/0").chmod(0)
    content, told = scan(written)
    assert content is not None
    assert content.progress.done == 1
    assert len(told) == 2


def test_a_directory_that_becomes_a_link_while_it_is_read_leads_nowhere(
    written: WrittenWorkspace, outside: Path
) -> None:
    """However often it is exchanged: at no moment does the scanner see what is outside."""
    inside = written.directory("sim/0")
    for sample in range(3):
        written.put(f"sim/0/{sample}")
        inner = outside / str(sample)
        inner.mkdir()
        (inner / "MERLIN_STATUS.json").write_text(status_text({"secret": {**SUCCESS, "workers": ["secret"]}}))
    link, aside, ended = written.path / "sim" / "link", written.path / "sim" / "aside", threading.Event()
    link.symlink_to(outside)

    def exchange() -> None:
        while not ended.is_set():
            inside.rename(aside)
            link.rename(inside)
            inside.rename(link)
            aside.rename(inside)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(150):
            content, _ = scan(written)
            assert content is not None
            assert all(task.workers != ("secret",) for step in content.steps for task in step.tasks)
    finally:
        ended.set()
        thread.join()


def test_a_long_log_costs_its_end_only(written: WrittenWorkspace) -> None:
    """10 GB of it."""
    log = written.directory("prep") / "prep.out"
    with log.open("wb") as file:
        file.truncate(10 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"the end")
    began = time.monotonic()
    tail = read_tail(LogFile.of([written.path.parent], str(written.path), "prep", "prep", LogStream.STDOUT), 7)
    assert time.monotonic() - began < 5
    assert tail is not None
    assert (tail.text, tail.size, tail.is_whole) == ("the end", 10 * 2**30 + 7, False)


def test_a_log_that_is_no_file_is_none(written: WrittenWorkspace, outside: Path) -> None:
    """A link, a FIFO, or one in a directory that is a link."""
    directory = written.directory("prep")
    (directory / "prep.out").symlink_to(outside / "MERLIN_STATUS.json")
    os.mkfifo(directory / "prep.err")
    (written.path / "post").symlink_to(outside)
    (outside / "post.out").write_text("secret")
    roots = [written.path.parent]
    for task, stream in (("prep", LogStream.STDOUT), ("prep", LogStream.STDERR), ("post", LogStream.STDOUT)):
        log = LogFile.of(roots, str(written.path), task, task, stream)
        assert read_tail(log, 100) is None
        assert read_on(log, None, 100) is None


def _many(root: Path, count: int) -> None:
    written = WrittenWorkspace(root / "many", count, level_max_dirs=100)
    text = json.dumps({"sim": {"@": SUCCESS}})
    for path in written.paths()[1:-1]:
        (written.directory(path) / "MERLIN_STATUS.json").write_text(text.replace("@", path))
    content, told = scan(written)
    assert content is not None
    assert told == []
    assert content.progress.done == count


def test_many_files_are_all_read(root: Path) -> None:
    """A directory for each task."""
    _many(root, 20_000)


@pytest.mark.soak
def test_a_million_files_are_all_read(root: Path) -> None:
    """As fewer are."""
    _many(root, 1_000_000)


def test_many_strange_directories_are_passed_over(written: WrittenWorkspace) -> None:
    """In a step, and in the workspace."""
    for number in range(3000):
        written.directory(f"strange_{number}")
        written.directory(f"sim/strange_{number}")
    content, told = scan(written)
    assert content is not None
    assert content.progress.total == 9
    assert told == []
