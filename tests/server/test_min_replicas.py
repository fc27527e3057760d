"""`--min-replicas`: a response says where too few replicas have confirmed its writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import WrongDatabaseError
from tests.support.backends import BINARIES
from tests.support.live import Live, serving
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

CREATE = 'mutation { createStudy(input: {name: "%s"}) { study { name } userErrors { message } } }'


async def create(live: Live, name: str) -> Any:
    async with httpx.AsyncClient(timeout=20) as client:
        response = await client.post(live.http, json={"query": CREATE % name})
    answer = response.json()
    assert answer["data"]["createStudy"] == {"study": {"name": name}, "userErrors": []}, answer
    return answer["extensions"].get("replicas")


@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES)
async def test_a_write_that_a_paused_replica_lacks_stands_and_is_told(binary: Path, tmp_path: Path) -> None:
    """The same write with the replica at work has nothing to tell."""
    with (
        RedisServer.start(binary, tmp_path / "a") as master,
        RedisServer.start(binary, tmp_path / "b", replica_of=master) as replica,
    ):
        backend = make_backend(master.url, BackendOptions(min_replicas=1))
        async with serving(backend) as live:
            assert await create(live, "confirmed") is None
            assert backend.underreplicated_writes == 0
            assert replica.pid is not None
            os.kill(replica.pid, signal.SIGSTOP)
            try:
                assert await create(live, "unconfirmed") == {"wanted": 1, "confirmed": 0}
                assert backend.underreplicated_writes == 1
            finally:
                os.kill(replica.pid, signal.SIGCONT)


@pytest.mark.parametrize("url", ["sqlite:///merlin.db", "memory://"])
async def test_a_database_without_replicas_refuses_the_setting(url: str) -> None:
    with pytest.raises(WrongDatabaseError, match="min-replicas: only Redis has replicas"):
        make_backend(url, BackendOptions(min_replicas=1))
