"""Measures how soon a change is told: `python -m tests.benchmarks.changes [--runs 1000] [--changes 200]`.

Fills a Redis of its own, has `merlin-graphql serve` serve it in another process, subscribes to its runs over
websockets, and changes one run after the other by HSET, as another process would. A time is that from before the HSET
until the frame has arrived at one subscriber. The subscribers are bare sockets: a library's would measure themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import redis

from server.database.backends.factory import BackendOptions, make_backend
from server.database.demo_data import bulk_records
from server.database.models import RunModel
from tests.support.servers import RedisServer, binaries
from tests.support.serving import UNBOUNDED

DOCUMENT = "subscription { runChanges { kind runId run { workspace status study { name } } } }"
HANDSHAKE = (
    "GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


class Subscriber(asyncio.Protocol):
    """Notes when frames arrive."""

    def __init__(self) -> None:
        self.arrived: list[float] = []
        self.enough = asyncio.Event()
        self.wanted = 0
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(HANDSHAKE.encode())

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._buffer += data
        if not self._is_open:
            head, found, self._buffer = self._buffer.partition(b"\r\n\r\n")
            assert found, head
            self._is_open = True
            self._write({"type": "connection_init"})
            self._write({"type": "subscribe", "id": "1", "payload": {"query": DOCUMENT}})
        while len(self._buffer) >= 4:
            short = self._buffer[1]
            start = 2 if short < 126 else 4
            size = short if short < 126 else int.from_bytes(self._buffer[2:4], "big")
            if len(self._buffer) < start + size:
                break
            self._buffer = self._buffer[start + size :]
            self.arrived.append(now)
        if len(self.arrived) >= self.wanted:
            self.enough.set()

    def _write(self, message: object) -> None:
        text = json.dumps(message).encode()
        head = (
            bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big")
        )
        self.transport.write(head + bytes(4) + text)

    async def wait_for(self, count: int) -> None:
        self.wanted = count
        self.enough.clear()
        if len(self.arrived) < count:
            await self.enough.wait()


async def measure(url: str, port: int, ids: list[str], subscribers: int, changes: int) -> list[float]:
    """Seconds, of every change and subscriber."""
    loop = asyncio.get_running_loop()
    crowd = [(await loop.create_connection(Subscriber, "127.0.0.1", port))[1] for _ in range(subscribers)]
    await asyncio.gather(*(one.wait_for(1) for one in crowd))  # acknowledged
    await asyncio.sleep(1)  # and subscribed: the protocol does not tell
    seconds = []
    with redis.Redis.from_url(url) as client:
        for number in range(changes + 10):
            began = time.perf_counter()
            client.hset(f"run:{ids[number % len(ids)]}", "workspace", f"/changed/{subscribers}/{number}")
            await asyncio.gather(*(one.wait_for(number + 2) for one in crowd))
            if number >= 10:
                seconds += [one.arrived[number + 1] - began for one in crowd]
    for one in crowd:
        one.transport.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--changes", type=int, default=200)
    options = parser.parse_args()
    gc.disable()  # of the measuring side
    records = list(bulk_records(datetime.now(), options.runs))
    ids = [record.id for record in records if isinstance(record, RunModel)]

    async def fill(url: str) -> None:
        backend = make_backend(url, BackendOptions())
        await backend.open()
        await backend.insert(records)
        await backend.close()

    for engine, binary in binaries().items():
        with tempfile.TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as server:
            asyncio.run(fill(server.url))
            command = [sys.executable, "-m", "server", "serve", *UNBOUNDED, "--port", "0", "--database", server.url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                try:
                    assert process.stdout is not None
                    lines = iter(process.stdout.readline, "")
                    port = next(int(match[1]) for line in lines if (match := re.search(r"http://\S+?:(\d+)/", line)))
                    for count in (1, 500):
                        told = sorted(asyncio.run(measure(server.url, port, ids, count, options.changes)))
                        result = {
                            "engine": engine,
                            "subscribers": count,
                            "p50, ms": round(statistics.median(told) * 1000, 2),
                            "p99, ms": round(told[int(len(told) * 0.99)] * 1000, 2),
                            "longest, ms": round(told[-1] * 1000, 2),
                        }
                        print(json.dumps(result), flush=True)
                finally:
                    process.terminate()


if __name__ == "__main__":
    main()
