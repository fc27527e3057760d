"""SIGHUP: a service reads its files again, a server in a terminal ends with the terminal, and nohup's ignores it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from server.auth.token_file import add_line, hash_of, parse_line
from tests.support.serving import DEADLINE, MODULE, Serving, server_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for processes, and takes a terminal")

QUERY = {"query": "{ __typename }"}
RELOADED = "SIGHUP: the tokens and the keys are read again."
_IN_TERMINAL = (
    "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
_IGNORING = "import os, sys; from signal import *; signal(SIGHUP, SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


def token_line(name: str, secret: str) -> str:
    return f"{name} READ {hash_of(secret)}\n"


def status(serving: Serving, secret: str) -> int:
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.post(f"{serving.url}/graphql", json=QUERY, headers=headers, timeout=DEADLINE).status_code


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_reads_its_tokens_again(tmp_path: Path, workers: int) -> None:
    """In each process, in answer to a signal to the first one; the file is read even if it seems the same."""
    tokens = tmp_path / "tokens"
    add_line(tokens, parse_line(token_line("first", "secret")))
    arguments = ["--demo", "--workers", str(workers), "--token-file", str(tokens)]
    with Serving(tmp_path / "home", *arguments, login=True) as serving:
        assert status(serving, "secret") == 200
        serving.wait_until(lambda: workers == 1 or len(server_processes(serving.process.pid)) == workers)
        before = server_processes(serving.process.pid)
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_until(lambda: serving.stderr.count(RELOADED) == workers)
        serving.wait_until(lambda: serving.stderr.count("The tokens were read again: 1 of them.") == workers)
        add_line(tokens, parse_line(token_line("second", "other")))
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_until(lambda: serving.stderr.count("The tokens were read again: 2 of them.") == workers)
        assert (status(serving, "secret"), status(serving, "other")) == (200, 200)
        assert server_processes(serving.process.pid) == before
        assert serving.stop(signal.SIGTERM) == 0


def test_a_hangup_at_the_start_ends_nothing(tmp_path: Path) -> None:
    """Also of processes that were only just begun; those heed it once they can."""
    with Serving(tmp_path / "home", "--demo", "--workers", "2") as serving:
        serving.wait_until(lambda: "GraphQL:" in serving.stdout)
        pids = set()
        while serving.stderr.count(RELOADED) < 20:
            serving.process.send_signal(signal.SIGHUP)
            pids.update(server_processes(serving.process.pid))
            assert serving.process.poll() is None
        assert len(pids) == 2
        assert httpx.get(f"{serving.url}/healthz", timeout=DEADLINE).status_code == 200
        assert serving.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_ends_with_its_terminal(tmp_path: Path, workers: int) -> None:
    """The window is closed, or the connection that it stood in: as at SIGTERM, with all its processes."""
    terminal, inside = os.openpty()
    command = [sys.executable, "-c", _IN_TERMINAL, os.ttyname(inside), "-m", "server"]
    try:
        with Serving(tmp_path / "home", "--demo", "--workers", str(workers), command=command) as serving:
            assert httpx.get(f"{serving.url}/readyz", timeout=DEADLINE).status_code == 200
            serving.wait_until(lambda: workers == 1 or len(server_processes(serving.process.pid)) == workers)
            processes = server_processes(serving.process.pid)
            os.close(inside)
            inside = -1
            os.close(terminal)
            terminal = -1
            assert serving.wait() == 0
            assert [process for process in processes if process.exists()] == []
            assert serving.stderr == ""
            assert list(serving.temporary.iterdir()) == []
    finally:
        for end in (terminal, inside):
            if end >= 0:
                os.close(end)


@pytest.mark.parametrize("workers", [1, 2])
def test_under_nohup_it_goes_on(tmp_path: Path, workers: int) -> None:
    """Neither ended nor reloaded: the signal is ignored, as whoever started it so wants."""
    command = [sys.executable, "-c", _IGNORING, *MODULE]
    with Serving(tmp_path / "home", "--demo", "--workers", str(workers), command=command) as serving:
        assert httpx.get(f"{serving.url}/readyz", timeout=DEADLINE).status_code == 200
        serving.wait_until(lambda: workers == 1 or len(server_processes(serving.process.pid)) == workers)
        for pid in (serving.process.pid, *(int(it.name) for it in server_processes(serving.process.pid))):
            ignored = int(Path(f"/proc/{pid}/status").read_text().split("SigIgn:")[1].split()[0], 16)
            assert ignored >> (signal.SIGHUP - 1) & 1
            os.kill(pid, signal.SIGHUP)
        assert httpx.get(f"{serving.url}/healthz", timeout=DEADLINE).status_code == 200
        assert serving.stop(signal.SIGTERM) == 0
        assert serving.stderr == ""
