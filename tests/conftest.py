"""Real databases for the tests: every behaviour is tried on each of them."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from tests.support.servers import RedisServer, binaries
from tests.support.writers import Writer, writer_to

BOTH_ENGINES = {
    *("test_backends", "test_redis", "test_redis_url", "test_redis_rights", "test_feed_redis", "test_large_writes"),
    *("test_failovers", "test_outage", "test_refused_writes", "test_queues", "test_interop", "test_servers"),
}
"""Files about the commands that a server is sent, and about its answers: tried on Redis and on Valkey."""
WAIT_LONG = {
    *("test_truth", "test_living_workers", "test_progress", "test_status_at_work", "test_overwrites"),
    "test_board_truth",
}
"""Files whose tests wait for real workers or for timeouts: they begin first, others have the processors meanwhile."""

# Each server and each Merlin that a test starts would else compile all modules anew, which takes half of its start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Nobody is met but on loopback. A client of httpx would read 150 authorities, which takes longer than its request.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = "/nonexistent"


settings.register_profile("tests", deadline=None)  # a busy machine is no fault
settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves to the soak what is tested on Redis already, and has what waits long begin first."""
    items.sort(key=lambda item: item.path.stem not in WAIT_LONG)
    if "redis" not in binaries():
        return
    tests = {item.nodeid for item in items}
    for item in items:
        on_redis = item.nodeid.replace("valkey", "redis")
        if item.path.stem not in BOTH_ENGINES and on_redis != item.nodeid and on_redis in tests:
            item.add_marker(pytest.mark.soak)


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end: garbage is not looked for among them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that a test calls configures logging to the stderr of that test, which is closed after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer]]:
    """One server of each engine for the whole worker, started when first asked for: see `redis_server`."""
    servers: dict[str, RedisServer] = {}
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["redis", "valkey"])
def redis_server(
    request: pytest.FixtureRequest, redis_servers: dict[str, RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> RedisServer:
    """An empty Redis, and an empty Valkey."""
    return _empty_server(request.param, redis_servers, tmp_path_factory)


def _empty_server(
    engine: str, servers: dict[str, RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> RedisServer:
    binary = binaries().get(engine)
    if binary is None:
        pytest.skip(f"no {engine} server is installed here")
    if engine not in servers:
        servers[engine] = RedisServer.start(binary, tmp_path_factory.mktemp(engine))
    with servers[engine].client() as client:
        client.flushall()
    return servers[engine]


@dataclass(frozen=True)
class Store:
    """A database for one test: its URL, and how another process would write to it."""

    kind: str
    url: str

    def writer(self) -> Writer:
        """To be closed."""
        return writer_to(self.url)


@pytest.fixture(params=["sqlite", "redis", "valkey"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    redis_servers: dict[str, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Store:
    """An empty database that other processes can write to, too."""
    if request.param == "sqlite":
        return Store("sqlite", f"sqlite:///{tmp_path}/merlin.db")
    return Store("redis", _empty_server(request.param, redis_servers, tmp_path_factory).url)


@pytest.fixture(params=["memory", "sqlite", "redis", "valkey"])
def new_url(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    redis_servers: dict[str, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], str]:
    """Each call: the URL of an empty database."""
    numbers = itertools.count()

    def make() -> str:
        match request.param:
            case "memory":
                return "memory://"
            case "sqlite":
                return f"sqlite:///{tmp_path}/{next(numbers)}.db"
            case engine:
                return _empty_server(engine, redis_servers, tmp_path_factory).url

    return make


@pytest.fixture(params=["memory", "sqlite", "redis", "valkey"])
async def backend(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    redis_servers: dict[str, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ResultsBackend]:
    """An open, empty backend of each kind."""
    match request.param:
        case "memory":
            url = "memory://"
        case "sqlite":
            url = f"sqlite:///{tmp_path}/merlin.db"
        case engine:
            url = _empty_server(engine, redis_servers, tmp_path_factory).url
    backend = make_backend(url, BackendOptions())
    await backend.open()
    yield backend
    await backend.close()
