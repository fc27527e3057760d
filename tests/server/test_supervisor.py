"""Several server processes: how many, how they begin, and that none of them outlives the one that started it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.process.supervisor import Supervisor
from server.process.uvicorn_server import check_workers
from server.settings import SettingsError
from tests.support.raw_http import Cost
from tests.support.serving import DEADLINE, MODULE, Serving, run, server_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the children")

PROCESSORS = len(os.sched_getaffinity(0))


@contextmanager
def serving_by_two(
    home: Path, *arguments: str, command: Sequence[str] = MODULE
) -> Iterator[tuple[Serving, list[Path]]]:
    """A server and its processes, of which none is left behind, whatever a test finds."""
    processes: list[Path] = []
    with Serving(home, "--demo", "--workers", "2", *arguments, command=command) as serving:
        try:
            serving.wait_until(lambda: len(server_processes(serving.process.pid)) == 2)
            processes += server_processes(serving.process.pid)
            yield serving, processes
        finally:
            for process in processes:
                if not is_gone(process):
                    os.kill(int(process.name), signal.SIGCONT)
                    if serving.process.poll() is not None:
                        os.kill(int(process.name), signal.SIGKILL)


def serves(serving: Serving, processes: list[Path]) -> None:
    """Waits until each of them answers, while the others are stopped."""
    for process in processes:
        others = [int(other.name) for other in processes if other != process]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        assert httpx.get(f"{serving.url}/healthz", timeout=DEADLINE).status_code == 200
        for other in others:
            os.kill(other, signal.SIGCONT)


def is_gone(process: Path) -> bool:
    """Also where nobody has asked for its exit code."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(processes: list[Path]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not all(map(is_gone, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def replaced(serving: Serving, process: Path) -> bool:
    now = server_processes(serving.process.pid)
    return process not in now and len(now) == 2


@pytest.mark.parametrize("is_ready", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["serving", "starting"])
def test_processes_end_when_their_supervisor_is_killed(tmp_path: Path, is_ready: bool) -> None:
    """By SIGKILL, of which it can tell nobody: their port is free then, and the log says why they end."""
    with serving_by_two(tmp_path / "home", "--drain", "2") as (serving, processes):
        if is_ready:
            serves(serving, processes)
        url = httpx.URL(serving.url)
        serving.process.kill()
        serving.process.wait()
        wait_until_gone(processes)
        with socket.create_server((url.host, url.port or 0)):
            pass
        if is_ready:
            assert serving.stderr.count("The supervisor is gone: this server process ends, too.") == 2
            assert "Traceback" not in serving.stderr


@pytest.mark.soak
def test_one_that_is_stopped_then_ends_once_it_goes_on(tmp_path: Path) -> None:
    """It can't know before."""
    with serving_by_two(tmp_path / "home", "--drain", "2") as (serving, processes):
        serves(serving, processes)
        os.kill(int(processes[0].name), signal.SIGSTOP)
        serving.process.kill()
        serving.process.wait()
        wait_until_gone(processes[1:])
        assert not is_gone(processes[0])
        os.kill(int(processes[0].name), signal.SIGCONT)
        wait_until_gone(processes)


def test_a_stopped_process_costs_the_supervisor_nothing(tmp_path: Path) -> None:
    """Neither while it is stopped, nor when it is killed so; then it is replaced."""
    with serving_by_two(tmp_path / "home") as (serving, processes):
        before = Cost.of(serving.process.pid)
        os.kill(int(processes[0].name), signal.SIGSTOP)
        time.sleep(0.5)  # nothing is to happen
        assert server_processes(serving.process.pid) == processes
        os.kill(int(processes[0].name), signal.SIGKILL)
        serving.wait_until(lambda: replaced(serving, processes[0]))
        assert Cost.of(serving.process.pid).seconds - before.seconds < 0.1


@pytest.mark.soak
def test_a_process_is_replaced_also_where_ends_are_not_told(tmp_path: Path) -> None:
    """A parent that ignores SIGCHLD hands that on."""
    ignoring = "import os, sys; from signal import *; signal(SIGCHLD, SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", ignoring, *MODULE]
    with serving_by_two(tmp_path / "home", command=command) as (serving, processes):
        os.kill(int(processes[0].name), signal.SIGKILL)
        serving.wait_until(lambda: replaced(serving, processes[0]))


def test_their_number_is_bounded(tmp_path: Path) -> None:
    """By the processors, in one line, before anything is started."""
    refused = run(tmp_path / "home", "serve", "--demo", "--workers", "100000")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"merlin-graphql: workers: 100000 are too many for the {PROCESSORS} CPUs here; use {PROCESSORS * 4} or fewer.\n"
    )
    check_workers(PROCESSORS * 4)
    with pytest.raises(SettingsError):
        check_workers(PROCESSORS * 4 + 1)


class Stub:
    """A process as far as the supervisor looks at it."""

    def __init__(self, *, seems_ended: bool = False) -> None:
        self.pid = 1
        self.exitcode: int | None = None
        self.asked = 0
        self._other_end, self.sentinel = socket.socketpair()
        if seems_ended:
            self._other_end.close()

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        self.asked += 1
        return self.exitcode is None

    def terminate(self) -> None:
        self.exitcode = -signal.SIGTERM

    def join(self, _timeout: float | None = None) -> None:
        self._other_end.close()
        self.sentinel.close()


@pytest.fixture
def stubs() -> Iterator[list[Stub]]:
    made: list[Stub] = []
    yield made
    for stub in made:
        stub.join()


def supervisor(stubs: list[Stub], make: Any, count: int) -> Supervisor:
    def made() -> BaseProcess:
        stubs.append(make())
        return stubs[-1]  # type: ignore[return-value]  # all of it that is asked for

    return Supervisor(make=made, count=count, refuse_new=lambda: None, forget=lambda _: None, kill_after=1.0)


def test_a_signal_is_heeded_while_they_are_started(stubs: list[Stub]) -> None:
    """Between any two of them; those that were started are told to end."""

    def make() -> Stub:
        if len(stubs) == 2:
            signal.raise_signal(signal.SIGTERM)
        return Stub()

    assert supervisor(stubs, make, 1_000).run()
    assert [stub.exitcode for stub in stubs] == [-signal.SIGTERM] * 3


def test_one_that_seems_to_have_ended_is_asked_now_and_then(stubs: list[Stub]) -> None:
    """It may take its time until it has."""
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert supervisor(stubs, lambda: Stub(seems_ended=True), 1).run()
    assert stubs[0].asked < 5
