"""Programs of TypeScript that try the board's pure modules in Node."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.support.board import MODULES

NODE = shutil.which("node")
ESBUILD = MODULES / ".bin" / "esbuild"
with_npm = pytest.mark.skipif(
    NODE is None or not ESBUILD.exists(), reason="node is not installed here, or npm not web/board/package.json"
)


async def holds(directory: Path, source: Path, group: str, *given: str) -> None:
    """Runs a group of a program."""
    script = directory / "units.mjs"
    options = ("--bundle", "--platform=node", "--format=esm", "--jsx=automatic", "--log-level=error")
    modules = (f"--alias:{name}={MODULES / name}" for name in ("react", "@dagrejs/dagre"))
    await _ran(ESBUILD, source, *options, f"--outfile={script}", *modules)
    await _ran(NODE, script, group, *given)


async def _ran(*command: object) -> None:
    """In Nepal, whose offset no site has."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env={**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "en_US.UTF-8", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
