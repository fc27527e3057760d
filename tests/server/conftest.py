"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from server.cli import main
from tests.support.command_line import Run
from tests.support.live import DEADLINE, Live


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, stdout and stderr of a command, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
async def client(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    """Of the server that the test, or its file, calls `live`."""
    async with httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as client:
        yield client
