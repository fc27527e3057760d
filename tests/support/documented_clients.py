"""The clients of docs/clients.md as they are written there: in a process of Node, and bundled for a browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import blocks

TESTS = Path(__file__).parents[1]
MODULES = TESTS / "node_modules"
_OWN = TESTS / "web" / "reconnects"
_ADDRESS = "localhost:8000"
"""That of the server in the documentation."""
IN_NODE = ("graphql_ws", "graphql_sse", "apollo", "urql", "relay")
NODE = shutil.which("node")
with_node = pytest.mark.skipif(
    NODE is None or not MODULES.exists(),
    reason="node is not installed here, or npm has not installed tests/package.json",
)


def write_client(client: str, port: int, directory: Path, page: str = "page.js") -> Path:
    """Writes a client's files into a directory of its own, and returns the one to run."""
    place = directory / client
    place.mkdir(parents=True)
    if not (link := directory / "node_modules").exists():
        link.symlink_to(MODULES)
    shutil.copy(_OWN / "with_relay.js", place)
    shutil.copy(_OWN / page, place / "page.js")
    for text in blocks("docs/clients.md", "js"):
        if (named := re.match(r"// (\w+\.js)\n", text)) is not None:
            (place / named[1]).write_text(text.replace(_ADDRESS, f"127.0.0.1:{port}"))
    return place / f"with_{client}.js"


@dataclass
class Pages:
    """What the clients show."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The map that each client showed last."""
    errors: dict[str, list[str]] = field(default_factory=dict)


@asynccontextmanager
async def in_node(port: int, directory: Path, token: Path, clients: Collection[str] = IN_NODE) -> AsyncIterator[Pages]:
    """Clients of a server, in one process; they send the token that stands in a file at that moment."""
    assert NODE is not None
    directory.mkdir()
    shutil.copy(_OWN / "node.js", directory)
    (directory / "package.json").write_text('{"type": "module"}')
    files = [write_client(client, port, directory) for client in clients]
    process = await asyncio.create_subprocess_exec(
        *map(str, (NODE, directory / "node.js", *files)),
        env={**os.environ, "TOKEN_FILE": str(token)},
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    pages = Pages()
    reading = asyncio.create_task(_read(process, pages))
    try:
        yield pages
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(process: asyncio.subprocess.Process, pages: Pages) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        told = json.loads(line)
        if "error" in told:
            pages.errors.setdefault(told["client"], []).append(told["error"])
        else:
            pages.runs[told["client"]] = told["runs"]


async def bundle(client: str, port: int, directory: Path) -> str:
    """A client as one script for a browser."""
    file = write_client(client, port, directory, "browser_page.js")
    process = await asyncio.create_subprocess_exec(
        *(MODULES / ".bin" / "esbuild", file, "--bundle", "--format=iife"), stdout=asyncio.subprocess.PIPE
    )
    script, _ = await process.communicate()
    assert process.returncode == 0
    return script.decode()
