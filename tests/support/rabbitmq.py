"""A real RabbitMQ for tests: without root, on loopback only, killed by its own handle. Debian has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.servers import LOOPBACK, ServerError, TlsFiles

_DEADLINE = 60.0
"""Seconds that a start may take on a busy machine."""


def rabbitmq_server() -> Path | None:
    """Its start script, as Debian installs it, or as RABBITMQ_SERVER names it."""
    for place in (os.environ.get("RABBITMQ_SERVER"), "/usr/lib/rabbitmq/bin/rabbitmq-server"):
        if place and Path(place).is_file() and _epmd() is not None:
            return Path(place)
    return None


def _epmd() -> Path | None:
    """Erlang's daemon for the names of nodes, which beside an `erl` of its own is in no PATH."""
    if found := shutil.which("epmd"):
        return Path(found)
    erl = shutil.which("erl")
    return next(Path(erl).resolve().parents[1].glob("erts-*/bin/epmd"), None) if erl else None


@dataclass
class RabbitServer:
    scheme: str
    port: int
    directory: Path
    _server: subprocess.Popen[bytes]
    _epmd: subprocess.Popen[bytes]

    @classmethod
    def start(cls, script: Path, directory: Path, tls: TlsFiles | None = None) -> Self:
        """Ready when this returns, with the user `guest` and the virtual host `/`."""
        epmd_port, port, other = _free_ports(3)
        directory.mkdir(parents=True)
        if tls is not None:
            lines = (
                "listeners.tcp = none",
                f"listeners.ssl.default = {LOOPBACK}:{port}",
                f"ssl_options.cacertfile = {tls.ca}",
                f"ssl_options.certfile = {tls.certificate}",
                f"ssl_options.keyfile = {tls.key}",
                "ssl_options.verify = verify_peer",
            )
            (directory / "rabbitmq.conf").write_text("\n".join(lines))
        environ = os.environ | {
            "HOME": str(directory),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": f"rabbit{port}@localhost",
            **({} if tls else {"RABBITMQ_NODE_IP_ADDRESS": LOOPBACK, "RABBITMQ_NODE_PORT": str(port)}),
            "RABBITMQ_DIST_PORT": str(other),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        epmd = subprocess.Popen([str(_epmd()), "-port", str(epmd_port), "-address", LOOPBACK], env=environ)
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [script],
                env=environ,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started = cls("amqp" if tls is None else "amqps", port, directory, server, epmd)
        try:
            started._wait()
        except BaseException:
            started.stop()
            raise
        return started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{self.scheme}://guest:guest@{LOOPBACK}:{self.port}/%2F"

    def kill(self) -> None:
        """Die as in a crash, with what it has started itself: its session is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def stop(self) -> None:
        self.kill()
        self._epmd.kill()
        self._epmd.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _DEADLINE
        while b"Server startup complete" not in (log := (self.directory / "log").read_bytes()):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"RabbitMQ is not ready:\n{log.decode(errors='replace')[-2000:]}")
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """Different ones, which are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
