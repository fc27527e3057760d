"""Measures what slow subscribers cost: `python -m tests.benchmarks.consumers [--only idle unread vanished stuck]`.

Each scenario has `merlin-graphql serve` of its own, on a Redis of its own, in another process; memory is its resident
set. Subscribers are bare sockets. `idle`: 2,000 subscribers while nothing changes, after they left, and once again.
`unread`: 100 that never read while 200 runs a second change, beside one that reads. `vanished`: the same, but their
hosts answer nothing any more, not even TCP. `stuck`: one that never reads, which `--send-timeout` leaves alone, while
150,000 runs are created and deleted; over a websocket the missing answer to a ping ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import re
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import redis

from server.database.backends.factory import BackendOptions, make_backend
from server.database.demo_data import bulk_records
from server.database.models import RunModel
from tests.benchmarks.changes import HANDSHAKE
from tests.support.servers import RedisServer, binaries
from tests.support.serving import UNBOUNDED

RUNS = 1_000
DOCUMENT = "subscription { runChanges { kind runId run { workspace status study { name } } } }"
STREAM = f"GET /graphql?query={quote(DOCUMENT)} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
SO_ATTACH_FILTER = 26
PADDING = "x" * 2_000
"""A part of each changed workspace, so that unread events fill the buffers of the sockets soon."""


class Server:
    """One server process, and the Redis behind it."""

    def __init__(self, process: subprocess.Popen[str], port: int, url: str, ids: list[str]) -> None:
        self.port = port
        self.url = url
        self.ids = ids
        self._pid = process.pid

    @property
    def mebibytes(self) -> float:
        return self._status("VmRSS")

    @property
    def most_mebibytes(self) -> float:
        """Since `forget_most`."""
        return self._status("VmHWM")

    def forget_most(self) -> None:
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1024

    @property
    def subscribers(self) -> int:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
            return int(float(re.findall(rb"^merlin_graphql_subscribers (\S+)", response.read(), re.MULTILINE)[0]))

    def wait(self, holds: Callable[[int], bool], seconds: float) -> None:
        """Until the number of subscribers holds, or the time is over."""
        end = time.monotonic() + seconds
        while not holds(self.subscribers) and time.monotonic() < end:
            time.sleep(0.2)


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    records = list(bulk_records(datetime.now(), RUNS))

    async def fill(url: str) -> None:
        backend = make_backend(url, BackendOptions())
        await backend.open()
        await backend.insert(records)
        await backend.close()

    binary = next(iter(binaries().values()))
    with tempfile.TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as database:
        asyncio.run(fill(database.url))
        command = [
            sys.executable,
            "-m",
            "server",
            "serve",
            "--port",
            "0",
            "--no-auth",
            *UNBOUNDED,
            "--database",
            database.url,
            *options,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                lines = iter(process.stdout.readline, "")
                port = next(int(match[1]) for line in lines if (match := re.search(r"http://\S+?:(\d+)/", line)))
                ids = [record.id for record in records if isinstance(record, RunModel)]
                yield Server(process, port, database.url, ids)
            finally:
                process.terminate()


def frame(message: object) -> bytes:
    """For messages from 126 to 65,535 bytes, and shorter ones."""
    text = json.dumps(message).encode()
    length = bytes([0x80 | len(text)]) if len(text) < 126 else struct.pack(">BH", 0xFE, len(text))
    return b"\x81" + length + bytes(4) + text


def subscribe(port: int, protocol: str) -> socket.socket:
    """A socket that has subscribed, and has read nothing but the beginning."""
    connection = socket.create_connection(("127.0.0.1", port))
    if protocol == "websocket":
        connection.sendall(HANDSHAKE.encode())
        connection.recv(4096)
        connection.sendall(frame({"type": "connection_init"}))
        connection.recv(4096)
        connection.sendall(frame({"type": "subscribe", "id": "1", "payload": {"query": DOCUMENT}}))
    else:
        connection.sendall(STREAM.encode())
        connection.recv(4096)
    return connection


def vanish(connection: socket.socket) -> None:
    """Drops every packet that arrives, as if the host were gone: no acknowledgement is sent any more."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))


def idle(protocol: str, count: int) -> dict[str, object]:
    with serving() as server:
        for connection in [subscribe(server.port, protocol) for _ in range(20)]:
            connection.close()  # what the first ones load stays
        server.wait(lambda number: number == 0, 10)
        levels = [server.mebibytes]
        for _ in range(2):
            connections = [subscribe(server.port, protocol) for _ in range(count)]
            server.wait(lambda number: number == count, 60)
            levels.append(server.mebibytes)
            for connection in connections:
                connection.close()
            server.wait(lambda number: number == 0, 60)
            time.sleep(5)
            levels.append(server.mebibytes)
        return {
            "kB each": round((levels[1] - levels[0]) * 1024 / count, 1),
            "MB before, with them, after, with others, after": [round(level) for level in levels],
        }


class Reader(threading.Thread):
    """A subscriber that reads: notes when each changed workspace arrives."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.arrived: dict[int, float] = {}
        self._connection = subscribe(port, "event stream")

    def run(self) -> None:
        rest = b""
        while data := self._connection.recv(2**16):
            now = time.monotonic()
            *lines, rest = (rest + data).split(b"\n\n")
            for line in lines:
                if found := re.search(rb"/changed/(\d+)/", line):
                    self.arrived[int(found[1])] = now


def unread(protocol: str, count: int, seconds: float, *, have_vanished: bool = False) -> dict[str, object]:
    """`count` subscribers that never read, while 200 runs a second change."""
    with serving() as server, redis.Redis.from_url(server.url) as client:
        reader = Reader(server.port)
        reader.start()
        connections = [subscribe(server.port, protocol) for _ in range(count)]
        server.wait(lambda number: number == count + 1, 60)
        if have_vanished:
            for connection in connections:
                vanish(connection)
        before, kernel = server.mebibytes, kernel_mebibytes()
        server.forget_most()
        began, most_kernel = time.monotonic(), 0.0
        sent: list[float] = []
        left: list[float] = []
        while time.monotonic() - began < seconds and len(left) < count:
            if len(sent) % 100 == 0:
                left += [time.monotonic() - began] * (count + 1 - server.subscribers - len(left))
                most_kernel = max(most_kernel, kernel_mebibytes())
            number = len(sent)
            sent.append(time.monotonic())
            client.hset(f"run:{server.ids[number % len(server.ids)]}", "workspace", f"/changed/{number}/{PADDING}")
            time.sleep(max(0.0, began + len(sent) / 200 - time.monotonic()))
        time.sleep(2)
        lags = sorted(reader.arrived[number] - at for number, at in enumerate(sent) if number in reader.arrived)
        for connection in connections:
            connection.close()
        return {
            "ended": len(left),
            "first ended after, s": round(left[0], 1) if left else None,
            "last ended after, s": round(left[-1], 1) if left else None,
            "MB before": round(before, 1),
            "most MB": round(server.most_mebibytes, 1),
            "most MB in the kernel": round(most_kernel - kernel, 1),
            "changes": len(sent),
            "of them told to the reader": len(lags),
            "its lag, ms, p50": round(statistics.median(lags) * 1000, 1),
            "p99": round(lags[int(len(lags) * 0.99)] * 1000, 1),
            "longest": round(lags[-1] * 1000, 1),
        }


def kernel_mebibytes() -> float:
    """What the buffers of all TCP sockets of this machine hold."""
    pages = int(re.findall(r"TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text())[0])
    return pages * resource.getpagesize() / 2**20


def stuck(protocol: str, runs: int) -> dict[str, object]:
    """One subscriber that never reads, while so many runs come and go, 1,000 at a time; beside it a reader."""
    with serving("--send-timeout", "86400") as server, redis.Redis.from_url(server.url) as client:
        Reader(server.port).start()
        with subscribe(server.port, protocol):
            for number in range(20_000):  # until it is stuck
                workspace = f"/changed/{number}/{PADDING}"
                client.hset(f"run:{server.ids[number % len(server.ids)]}", "workspace", workspace)
            time.sleep(2)
            before = server.mebibytes
            like = client.hgetall(f"run:{server.ids[0]}")
            for _ in range(runs // 1000):
                ids = [str(uuid.uuid4()) for _ in range(1000)]
                pipeline = client.pipeline(transaction=False)
                for id_ in ids:
                    pipeline.hset(f"run:{id_}", mapping={**like, b"id": id_, b"workspace": f"/come/{id_}"})
                pipeline.execute()
                time.sleep(0.25)  # the copy follows
                client.delete(*[f"run:{id_}" for id_ in ids])
                time.sleep(0.1)
            time.sleep(2)
            during, subscribers = server.mebibytes, server.subscribers
        server.wait(lambda number: number == 1, 10)
        time.sleep(10)
        return {
            "runs": runs,
            "MB before": round(before, 1),
            "MB while stuck": round(during, 1),
            "subscribers": subscribers,
            "MB after it left": round(server.mebibytes, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["idle", "unread", "vanished", "stuck"])
    parser.add_argument("--seconds", type=float, default=150.0, help="how long to wait for those that never read")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    for protocol in ("websocket", "event stream"):
        scenarios: dict[str, Callable[[str], dict[str, object]]] = {
            "idle": lambda protocol: idle(protocol, 2_000),
            "unread": lambda protocol: unread(protocol, 100, options.seconds),
            "vanished": lambda protocol: unread(protocol, 100, options.seconds, have_vanished=True),
            "stuck": lambda protocol: stuck(protocol, 150_000),
        }
        for name in options.only or scenarios:
            print(json.dumps({"scenario": name, "protocol": protocol, **scenarios[name](protocol)}), flush=True)


if __name__ == "__main__":
    main()
