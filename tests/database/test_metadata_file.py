"""Merlin's file of a run, on whatever file system: replaced whole where it is meant, and nothing else is touched."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Event

import pytest
from filelock import FileLock

from server.database.files.metadata_file import FileOutcome, FileState, bring_in_step, content_of
from server.database.models import RunModel, RunStatus
from tests.support.records import run, uid

OTHER = b'{"id": "' + uid(2).encode() + b'"}'
KEEPS_THE_LOCK = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@dataclass
class Site:
    """A root with one run's workspace, and a place beside it that nobody may write to."""

    root: Path
    outside: Path
    run: RunModel

    @property
    def workspace(self) -> Path:
        return Path(self.run.workspace)

    @property
    def info(self) -> Path:
        return self.workspace / "merlin_info"

    @property
    def file(self) -> Path:
        return self.info / "run_metadata.json"

    def write(
        self,
        *,
        workspace: Path | str | None = None,
        read: Callable[[], RunModel | None] | None = None,
        given_up: Event | None = None,
        is_new: bool = False,
    ) -> FileOutcome:
        return bring_in_step(
            [self.root],
            str(workspace or self.workspace),
            read or (lambda: self.run),
            given_up or Event(),
            is_new=is_new,
        )

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Everything of both places but what is no regular file's content."""
        found = {}
        for path in sorted((*self.root.rglob("*"), *self.outside.rglob("*"))):
            what = path.lstat()
            found[str(path)] = what.st_mode, path.read_bytes() if stat.S_ISREG(what.st_mode) else b""
        return found


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    root, outside = tmp_path / "root", tmp_path / "outside"
    workspace = root / "studies" / "hello_20260102-030405"
    (workspace / "merlin_info").mkdir(parents=True)
    (outside / "run" / "merlin_info").mkdir(parents=True)
    return Site(root, outside, run(1, str(workspace), run_status=RunStatus.QUEUED))


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    with Popen([sys.executable, "-c", KEEPS_THE_LOCK, path], stdin=PIPE, stdout=PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
        holder.communicate()


def test_a_file_is_replaced_and_keeps_its_mode(site: Site) -> None:
    """Who may read it stays so, and beside it stands nothing but the lock."""
    site.file.write_text(json.dumps({"id": site.run.id}))
    site.file.chmod(0o640)
    assert site.write() == FileOutcome(FileState.IN_STEP)
    assert json.loads(site.file.read_text()) == content_of(site.run)
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o640
    assert names(site.info) == ["run_metadata.json", "run_metadata.json.lock"]


@pytest.mark.parametrize(("directory", "file"), [(0o755, 0o644), (0o700, 0o600), (0o2775, 0o664)])
def test_a_first_file_is_for_those_whom_its_directory_is_for(site: Site, directory: int, file: int) -> None:
    """Whatever mask the server has: Merlin, run by others of a group, has to read it."""
    site.info.chmod(directory)
    mask = os.umask(0o077)
    try:
        assert site.write().state is FileState.IN_STEP
    finally:
        os.umask(mask)
    assert stat.S_IMODE(site.file.stat().st_mode) == file


def test_the_record_is_read_under_the_lock(site: Site) -> None:
    """What was changed while the lock was waited for is written, so that the last one who writes has the newest."""
    newer = replace(site.run, run_status=RunStatus.COMPLETED)

    def read() -> RunModel:
        assert not can_be_locked(site)
        return newer

    assert site.write(read=read).state is FileState.IN_STEP
    assert json.loads(site.file.read_text())["run_status"] == "COMPLETED"
    assert can_be_locked(site)


def can_be_locked(site: Site) -> bool:
    lock = FileLock(f"{site.file}.lock", blocking=False)
    try:
        with lock:
            return True
    except TimeoutError:
        return False


def test_a_run_that_is_gone_keeps_its_file(site: Site) -> None:
    """Tasks that still run read it."""
    site.file.write_text(json.dumps({"id": site.run.id}))
    assert site.write(read=lambda: None).state is FileState.GONE
    assert json.loads(site.file.read_text()) == {"id": site.run.id}


def test_the_file_of_another_run_is_left(site: Site) -> None:
    """But where the run is new in that workspace: Merlin finds the old one by it as long as that file stands there."""
    site.file.write_bytes(OTHER)
    assert site.write() == FileOutcome(FileState.OTHER_RUN)
    assert site.file.read_bytes() == OTHER
    assert site.write(is_new=True) == FileOutcome(FileState.IN_STEP)
    assert json.loads(site.file.read_text()) == content_of(site.run)


def test_the_file_of_another_run_that_cannot_be_replaced_is_told(site: Site) -> None:
    """It is known that Merlin goes on with the other run there, and why."""
    site.file.write_bytes(OTHER)
    (site.info / "run_metadata.json.merlin-graphql.tmp").mkdir()
    state, reason = site.write(is_new=True)
    assert state is FileState.OTHER_RUN
    assert "directory" in reason


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"id": 1}', b"[" * 100_000])
def test_a_file_that_is_no_runs_is_left(site: Site, content: bytes) -> None:
    """It is not known what would be lost; where a run is new, Merlin could not read that file either."""
    site.file.write_bytes(content)
    with pytest.raises(OSError, match=r"it is no run's"):
        site.write()
    assert site.file.read_bytes() == content
    assert site.write(is_new=True).state is FileState.IN_STEP


def test_an_older_merlins_file_stays_one(site: Site) -> None:
    """2.0.0b2 reads no `run_status`, and 2.0.0b4 reads `run_complete`; a status that it has no word for is named."""
    old = content_of(site.run) | {"run_complete": False}
    del old["run_status"]
    site.file.write_text(json.dumps(old))
    for status, complete in ((RunStatus.COMPLETED, True), (RunStatus.RUNNING, False)):
        site.write(read=lambda status=status: replace(site.run, run_status=status))  # type: ignore[misc]
        written = json.loads(site.file.read_text())
        assert "run_status" not in written
        assert written["run_complete"] is complete
    site.write(read=lambda: replace(site.run, run_status=RunStatus.CANCELLED))
    assert json.loads(site.file.read_text()) == content_of(replace(site.run, run_status=RunStatus.CANCELLED))


def test_no_lock_is_made_in_a_directory_of_another_user(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merlin opens its lock to write to it: one that belongs to this server would end the other user's run."""
    monkeypatch.setattr(os, "geteuid", lambda: site.info.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="another user's"):
        site.write()
    assert names(site.info) == []


@pytest.mark.parametrize("missing", ["merlin_info", "studies/hello_20260102-030405", "studies"])
def test_no_directory_is_made(site: Site, missing: str) -> None:
    """Where there is none there is no file to undo anything, and none is made, nor a lock."""
    missing_path = site.info if missing == "merlin_info" else site.root / missing
    missing_path.rename(site.outside / "moved")
    before = site.snapshot()
    assert site.write(is_new=True).state is FileState.NOTHING_THERE
    assert site.snapshot() == before


@pytest.mark.parametrize(
    "workspace",
    [
        "",
        "relative",
        ".",
        "/",
        "{root}",
        "{root}/..",
        "{root}x/run",
        "{root}/../outside/run",
        "{root}/way_out/run",
        "{outside}/run",
        "{root}/\0",
        "{root}/\ud800",
        "{root}/" + "a/" * 5_000,
    ],
)
def test_what_lies_outside_of_the_roots_is_left(site: Site, workspace: str) -> None:
    """However its path is spelled. The root itself is no run's."""
    (site.root / "way_out").symlink_to(site.outside)
    (site.root / "merlin_info").mkdir()
    before = site.snapshot()
    path = workspace.format(root=site.root, outside=site.outside)
    outcome = bring_in_step([site.root], path, lambda: site.run, Event(), is_new=True)
    assert outcome == FileOutcome(FileState.OUTSIDE)
    assert site.snapshot() == before


def test_symlinks_within_the_roots_are_followed(site: Site, tmp_path: Path) -> None:
    """A root, and a workspace, may have other names; what counts is where they really are."""
    (tmp_path / "alias").symlink_to(site.root)
    (site.outside / "way_in").symlink_to(site.workspace)
    outcome = bring_in_step(
        [tmp_path / "nothing", tmp_path / "alias"],
        str(site.outside / "way_in"),
        lambda: site.run,
        Event(),
        is_new=False,
    )
    assert outcome.state is FileState.IN_STEP
    assert site.file.exists()


def test_a_directory_of_merlin_that_leads_out_is_not_followed(site: Site) -> None:
    """Wherever it leads to."""
    site.info.rmdir()
    site.info.symlink_to(site.outside / "run" / "merlin_info")
    before = site.snapshot()
    with pytest.raises(OSError, match="directory"):
        site.write(is_new=True)
    assert site.snapshot() == before


@pytest.mark.parametrize("swapped", ["studies", "studies/hello_20260102-030405"])
def test_a_symlink_that_is_put_in_meanwhile_is_not_followed(
    site: Site, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the real path and the walk along it a directory becomes a symlink that leads out."""
    (site.outside / "hello_20260102-030405" / "merlin_info").mkdir(parents=True)
    resolve, path = os.path.realpath, site.root / swapped

    def resolve_and_swap(asked: str) -> str:
        resolved = resolve(asked)
        if path.exists() and not path.is_symlink() and asked == str(site.workspace):
            path.rename(site.outside / "real")
            path.symlink_to(site.outside if swapped == "studies" else site.outside / "run")
        return resolved

    monkeypatch.setattr(os.path, "realpath", resolve_and_swap)
    with pytest.raises(OSError, match=r"directory|symbolic"):
        site.write()
    assert path.is_symlink()
    assert [path.name for path in site.outside.rglob("run_metadata*")] == []


def fifo(path: Path, _outside: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _outside: Path) -> None:
    path.mkdir()


def symlink(path: Path, outside: Path) -> None:
    (outside / "target").write_text("precious")
    path.symlink_to(outside / "target")


def dangling_symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nowhere")


@pytest.mark.parametrize("name", ["run_metadata.json", "run_metadata.json.lock"])
@pytest.mark.parametrize("make", [fifo, directory, symlink, dangling_symlink])
def test_what_is_no_regular_file_is_neither_opened_nor_replaced(
    site: Site, name: str, make: Callable[[Path, Path], None]
) -> None:
    """A FIFO without a writer would hang, a symlink lead out."""
    make(site.info / name, site.outside)
    if not name.endswith(".lock"):
        (site.info / f"{name}.lock").touch(0o644)
    before = site.snapshot()
    with pytest.raises(OSError, match="it is no regular file"):
        site.write(is_new=True)
    assert site.snapshot() == before


@pytest.mark.parametrize("name", ["run_metadata.json.tmp", "run_metadata.json.merlin-graphql.tmp"])
def test_what_a_crash_has_left_does_not_matter(site: Site, name: str) -> None:
    """Half a file of Merlin's stays, which it overwrites itself; one of ours goes."""
    (site.info / name).write_text("{")
    (site.info / name).chmod(0o400)
    assert site.write().state is FileState.IN_STEP
    assert json.loads(site.file.read_text()) == content_of(site.run)
    assert (site.info / name).exists() == (name == "run_metadata.json.tmp")


def test_a_symlink_in_place_of_what_a_crash_has_left_is_not_followed(site: Site) -> None:
    """It goes, and its target stays."""
    target = site.outside / "target"
    target.write_text("precious")
    (site.info / "run_metadata.json.merlin-graphql.tmp").symlink_to(target)
    assert site.write().state is FileState.IN_STEP
    assert target.read_text() == "precious"


def test_a_directory_that_cannot_be_written_to_is_left(site: Site) -> None:
    """The error says so."""
    site.info.chmod(0o500)
    if os.access(site.info, os.W_OK):
        pytest.skip("root may write everywhere")
    try:
        with pytest.raises(PermissionError):
            site.write()
        assert names(site.info) == []
    finally:
        site.info.chmod(0o700)


def test_a_record_that_is_too_large_is_not_written(site: Site) -> None:
    """What stands there stays."""
    large = replace(site.run, additional_data=json.dumps({"text": "x" * 9_000_000}))
    with pytest.raises(OSError, match="too large"):
        site.write(read=lambda: large)
    assert names(site.info) == ["run_metadata.json.lock"]


def test_a_file_that_is_too_large_is_not_read(site: Site) -> None:
    """It takes no more memory than a large record does."""
    with site.file.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="too large"):
        site.write(is_new=True)
    assert site.file.stat().st_size == 2**40


def test_a_lock_that_another_process_keeps_is_waited_for(site: Site) -> None:
    """Until nobody waits for the file any more; then nothing was written, and it is free for others."""
    given_up = Event()
    with locked_by_another_process(site.info / "run_metadata.json.lock"):
        timer = threading.Timer(0.2, given_up.set)
        timer.start()
        with pytest.raises(TimeoutError):
            site.write(given_up=given_up)
        timer.join()
    assert not site.file.exists()
    assert site.write().state is FileState.IN_STEP


def test_a_lock_that_was_removed_before_it_was_taken_is_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits for the new one: two that hold different locks would not know of each other."""
    lock, new_lock, done = site.info / "run_metadata.json.lock", site.info / "new.lock", Event()
    flock = fcntl.flock

    def remove_and_flock(descriptor: int, operation: int) -> None:
        if new_lock.exists():
            new_lock.replace(lock)
        flock(descriptor, operation)

    def write() -> None:
        site.write()
        done.set()

    writer = threading.Thread(target=write)
    with FileLock(new_lock):
        monkeypatch.setattr(fcntl, "flock", remove_and_flock)
        writer.start()
        assert not done.wait(0.2)
        assert not new_lock.exists()
    assert done.wait(10)
    writer.join()
    assert site.file.exists()


def test_who_is_not_waited_for_any_more_replaces_nothing(site: Site) -> None:
    """Also when that comes to be at the very last: what is written by then is removed again."""
    site.file.write_text(json.dumps({"id": site.run.id}))
    given_up = Event()

    def read() -> RunModel:
        given_up.set()
        return site.run

    with pytest.raises(TimeoutError):
        site.write(read=read, given_up=given_up)
    assert json.loads(site.file.read_text()) == {"id": site.run.id}
    assert names(site.info) == ["run_metadata.json", "run_metadata.json.lock"]


def test_no_descriptor_is_left_open(site: Site) -> None:
    """Whatever comes of it."""
    before = names(Path("/dev/fd"))
    site.write()
    site.write(workspace=site.outside)
    site.write(workspace=site.root / "nothing")
    site.file.write_text("[]")
    with pytest.raises(OSError, match="no run's"):
        site.write()
    assert len(names(Path("/dev/fd"))) == len(before)
