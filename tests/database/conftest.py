"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.database.backends.base import ResultsBackend
from tests.support.backends import BINARIES
from tests.support.comparison import writer_behind
from tests.support.merlin_config import Places
from tests.support.writers import Writer


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return BINARIES[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "merlin.db"


@pytest.fixture
def writer(backend: ResultsBackend) -> Iterator[Writer]:
    with closing(writer_behind(backend)) as writer:
        yield writer


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "cwd", tmp_path / "home")
    places.cwd.mkdir()
    places.merlin.mkdir(parents=True)
    return places
