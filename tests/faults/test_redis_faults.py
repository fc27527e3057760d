"""Faults of Redis under a load of mutations: what clients were told is true when it is over."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.checker import Outcome
from tests.support.fault_rounds import MORE, Record, fault_round
from tests.support.nemeses import DURABLE, NEMESES, Nemesis
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["redis", "valkey"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Proxy]]:
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server is installed here")
    with RedisServer.start(binary, tmp_path, None, *DURABLE) as server:
        async with Proxy(server.port) as proxy:
            yield server, proxy


@pytest.mark.parametrize("nemesis", NEMESES, ids=lambda nemesis: nemesis.__name__)
async def test_what_clients_were_told_is_true_after_a_fault(
    site: tuple[RedisServer, Proxy], nemesis: Nemesis, tmp_path: Path, record_property: Record
) -> None:
    """Nothing acknowledged is lost, nothing refused is done, and copies, subscribers and Merlin agree with Redis."""
    told = await fault_round(*site, [nemesis], 1, tmp_path / "home", record_property)
    assert told.outcomes[Outcome.DONE] >= 2 * MORE
    assert told.mutations["Merlin"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_what_clients_were_told_is_true_after_many_faults(
    site: tuple[RedisServer, Proxy], seed: int, tmp_path: Path, record_property: Record
) -> None:
    """As above, at three servers, one fault after the other in any order."""
    nemeses = random.Random(seed).choices(NEMESES, k=20)
    await fault_round(*site, nemeses, seed, tmp_path / "home", record_property, servers=3)
