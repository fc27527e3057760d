"""A running server whose Redis is killed, and comes back as another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from server.database.backends.redis import RedisBackend
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer, binaries
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio


async def insert(url: str, *records: Any) -> None:
    backend = RedisBackend(url)
    await backend.open()
    await backend.insert(records)
    await backend.close()


def runs_and_freshness(client: httpx.Client) -> tuple[list[str], bool]:
    """The ids of all runs, and whether the server says that they are fresh."""
    query = "{ runs { nodes { id } } database { staleSince } }"
    data = client.post("/graphql", json={"query": query}).raise_for_status().json()["data"]
    return [node["id"] for node in data["runs"]["nodes"]], data["database"]["staleSince"] is None


@pytest.mark.parametrize("engine", ["redis", "valkey"])
async def test_a_killed_redis_that_returns_with_other_data_is_followed(engine: str, tmp_path: Path) -> None:
    """The server stays up, answers from its copy, says on /readyz that it is stale, and then serves the new data."""
    binary = binaries().get(engine)
    if binary is None:
        pytest.skip(f"no {engine} server is installed here")
    with RedisServer.start(binary, tmp_path / engine) as redis:
        await insert(redis.url, study(1), run(11, study_id=uid(1)))
        with (
            Serving(tmp_path / "home", "--database", redis.url) as serving,
            httpx.Client(base_url=serving.url) as client,
        ):
            assert runs_and_freshness(client) == ([uid(11)], True)
            redis.kill()
            serving.wait_until(lambda: client.get("/readyz").status_code == 503)
            assert client.get("/readyz").json()["status"] == "stale"
            assert runs_and_freshness(client) == ([uid(11)], False)
            redis.restart()
            await insert(redis.url, run(12), run(13))
            serving.wait_until(lambda: client.get("/readyz").status_code == 200)
            serving.wait_until(lambda: runs_and_freshness(client) == ([uid(12), uid(13)], True))
            assert "Traceback" not in serving.stderr
