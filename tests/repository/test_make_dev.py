"""`make dev`: the server is started anew when a file is saved."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("watchfiles")

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PLACES = {"$(BIN)": str(BIN), "$(ARGS)": "--port 0", f"{BIN}/watchfiles": f"{sys.executable} -m watchfiles"}
DEADLINE = 60


def command() -> str:
    """The Makefile's own, with its variables put in."""
    (found,) = re.findall(r"^\t(\S+/watchfiles .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for variable, value in PLACES.items():
        found = found.replace(variable, value)
    return str(found)


async def test_a_saved_file_starts_the_server_anew(tmp_path: Path) -> None:
    """In a copy of the sources, of which the server that runs is one."""
    for package in ("schema", "server"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    process = await asyncio.create_subprocess_shell(
        command(),
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        lines = process.stdout
        assert lines is not None

        async def until(text: bytes) -> None:
            while text not in (line := await lines.readline()):
                assert line

        async with asyncio.timeout(DEADLINE):
            await until(b"http://127.0.0.1:")
            with (tmp_path / "server" / "__init__.py").open("a") as file:
                file.write('\nprint("The new one.")\n')
            await until(b"The new one.")
            await until(b"http://127.0.0.1:")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
