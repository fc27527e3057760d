"""Serves one contestant as `merlin-graphql serve` serves: `python -m tests.benchmarks.serving.contestants NAME URL`."""

from __future__ import annotations

import asyncio
import socket
import sys
from importlib import import_module

import uvicorn
import uvloop

MODULES = {"a": "strawberry_loaders", "b": "merlin_managers", "c": "by_hand", "d": "static_bytes"}


async def serve(name: str, url: str) -> None:
    """Until it is told to end; prints its address when it is ready."""
    module = import_module(f"tests.benchmarks.serving.contestants.{MODULES[name]}")
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        async with module.opened(url) as app:
            config = uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
            )
            print(f"http://127.0.0.1:{listener.getsockname()[1]}/graphql", flush=True)
            await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*sys.argv[1:]))
