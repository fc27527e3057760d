"""One server for the recipes of Python: with sample data, a login, and workspaces that tests write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.notebook import Notebook
from tests.support.serving import Serving

TOKEN = "a-token-that-only-these-tests-know"


@pytest.fixture(scope="session")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspaces")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, workspaces: Path) -> Iterator[Serving]:
    home, environ = tmp_path_factory.mktemp("clients") / "home", {"MERLIN_GRAPHQL_TOKEN": TOKEN}
    with Serving(home, "--demo", "--workspace-root", str(workspaces), login=True, environ=environ) as serving:
        yield serving


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the recipes look for it."""
    monkeypatch.setenv("TOKEN", TOKEN)
    return TOKEN


@pytest.fixture
def notebook(server: Serving, token: str) -> Notebook:
    return Notebook(server.url.removeprefix("http://"))
