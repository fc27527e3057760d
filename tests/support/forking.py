"""The child of forked.py: has modules imported, and forks for each program, which saves most of the program's start.

A request is a JSON message with four file descriptors: the standard streams, and a socket that is told the id of the
process, and once that has ended its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LONGEST = 1_000_000
"""Bytes of a request."""


def next_program(requests: socket.socket) -> dict[str, Any] | None:
    """Returns in each process that is forked, with the request; and in this one at the end, with None."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), *running], [], [])
        for pidfd in ready:
            if pidfd in running:
                pid, told = running.pop(pidfd)
                os.close(pidfd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with told:
                    _tell(told, code)
        if requests.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, LONGEST, 4)
        if not message:
            return None
        request: dict[str, Any] = json.loads(message)
        pid = os.fork()
        if pid == 0:
            for one in (requests, *(told for _, told in running.values())):
                one.detach()  # all that is open here is closed at once
            _become(request, descriptors)
            return request
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        told = socket.socket(fileno=descriptors[3])
        running[os.pidfd_open(pid)] = pid, told
        _tell(told, pid)


def _tell(told: socket.socket, number: int) -> None:
    try:
        told.sendall(f"{number}\n".encode())
    except OSError:
        return  # nobody waits for it any more


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """What a new process has of its own."""
    if request["new_session"]:
        os.setsid()
    for stream, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, stream)
    os.closerange(3, 1024)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    tempfile.tempdir = None


def run(arguments: list[str]) -> None:
    """As Python does with `-m MODULE …`, `-c TEXT` or `PATH …`."""
    if arguments[0] == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.path[0], sys.argv = "", arguments[:1]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0], sys.argv = str(Path(arguments[0]).parent), arguments
        runpy.run_path(arguments[0], run_name="__main__")


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # what is forked need not look through what it shares
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the tests, whose processes have handlers of their own
    program = next_program(requests)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if program is not None:
        run(program["arguments"])


if __name__ == "__main__":
    main()
