"""Measures mutations at a Redis that is far away: each byte takes 100 ms there, and 100 ms back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.redis_script import SCRIPT
from server.database.merlin_database import MerlinDatabase, opened
from tests.support.servers import LOOPBACK, RedisServer, binaries

ONE_WAY = 0.1
CLIENTS = 20
EACH = 4
"""Mutations of each client."""

Mutation: TypeAlias = Callable[[int, int], Awaitable[Any]]
"""The second number is the client's; no two calls have both equal."""


async def main() -> None:
    binary = next(iter(binaries().values()))
    with TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as server:
        with server.client() as client:
            client.script_load(SCRIPT)
        async with (
            far_from(server.port) as port,
            opened(make_backend(f"redis://{LOOPBACK}:{port}/0", BackendOptions())) as database,
        ):
            await measure(database)


async def measure(database: MerlinDatabase) -> None:
    await asyncio.gather(*(database.runs.create(f"warm {n}", f"/warm/{n}", ["q"]) for n in range(CLIENTS)))
    ids = [run.id for run in database.runs.all()]
    worker = await database.logical_workers.create("worker", ["q"])
    for clients in (1, CLIENTS):
        mutations: dict[str, Mutation] = {
            "createRun, one study": lambda n, c, k=clients: database.runs.create("one", f"/{k}/one/{c}/{n}", ["q"]),  # type: ignore[misc]
            "createRun, a study each": lambda n, c, k=clients: database.runs.create(
                f"study {c}", f"/{k}/{c}/{n}", ["q"]
            ),  # type: ignore[misc]
            "updateRun": lambda n, c: database.runs.update(ids[c], additional_data={"n": n}),
            "attachWorkers": lambda n, c: database.runs.attach_workers(ids[(c + n) % CLIENTS], [worker.id]),
            "annotate": lambda n, c: database.annotate(ids[c], {"n": n}),
            "deleteRun": lambda n, c, k=clients: database.runs.delete(f"/{k}/{c}/{n}", force=True),  # type: ignore[misc]
        }
        for name, mutation in mutations.items():
            print(json.dumps({"mutation": name, "clients": clients, "a_second": await rate(mutation, clients)}))


async def rate(mutation: Mutation, clients: int) -> float:
    async def client(number: int) -> None:
        for count in range(EACH):
            await mutation(count, number)

    began = time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    return round(clients * EACH / (time.perf_counter() - began), 2)


@asynccontextmanager
async def far_from(target: int) -> AsyncIterator[int]:
    """The port of a proxy before a port."""
    links: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(LOOPBACK, target)
        links.update(asyncio.create_task(_forward(*ends)) for ends in ((reader, requests), (answers, writer)))

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for link in links:
                link.cancel()
            await asyncio.gather(*links, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await reader.read(1 << 16):
        loop.call_later(ONE_WAY, writer.write, chunk)
    loop.call_later(ONE_WAY, writer.close)


if __name__ == "__main__":
    asyncio.run(main())
