"""Programs of JavaScript, in directories where they find the packages of tests/package.json."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

MODULES = Path(__file__).parents[1] / "node_modules"
NODE = shutil.which("node")
DEADLINE = 60.0


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skips a test where they are not installed."""
    missing = NODE is None or not all((MODULES / package).exists() for package in packages)
    return pytest.mark.skipif(missing, reason="npm has not installed tests/package.json")


def project(directory: Path, *sources: Path, **texts: str) -> Path:
    """A new directory with copies of some files, and with some texts, by name without the `.js`."""
    directory.mkdir(parents=True)
    (directory / "node_modules").symlink_to(MODULES)
    (directory / "package.json").write_text('{"type": "module"}')
    for source in sources:
        shutil.copy(source, directory)
    for name, text in texts.items():
        (directory / f"{name}.js").write_text(text)
    return directory


async def node(directory: Path, *arguments: str, given: object = None) -> str:
    """What a program prints that reads a value as JSON and ends well."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        *(NODE, *arguments),
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            out, errors = await process.communicate(json.dumps(given).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (out + errors).decode()
    return out.decode()


async def asked(directory: Path, script: str, given: object) -> Any:
    """The value that a program prints as JSON."""
    return json.loads(await node(directory, script, given=given))


async def bundled(directory: Path, entry: str) -> str:
    """One classic script for a page."""
    options = ("--bundle", "--format=iife", "--jsx=automatic", "--log-level=error", "--loader:.graphql=text")
    return await node(directory, "node_modules/.bin/esbuild", entry, *options)
