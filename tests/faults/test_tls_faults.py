"""Faults of the certificate of a Redis under a load of mutations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checker import Outcome
from tests.support.fault_rounds import MORE, Record, fault_round
from tests.support.nemeses import DURABLE, Nemesis, certificate_expired, certificate_replaced
from tests.support.proxy import Proxy
from tests.support.servers import RedisServer, TlsFiles, binaries, supports_tls

pytestmark = pytest.mark.anyio

BINARY = next((path for path in binaries().values() if supports_tls(path)), None)


@pytest.mark.skipif(BINARY is None, reason="no server binary here has TLS built in")
@pytest.mark.parametrize("nemesis", [certificate_replaced, certificate_expired], ids=lambda nemesis: nemesis.__name__)
async def test_what_clients_were_told_is_true_after_a_fault_of_a_certificate(
    nemesis: Nemesis, tmp_path: Path, record_property: Record
) -> None:
    """Without a restart of the servers: they connect again as soon as there is a certificate that is valid."""
    assert BINARY is not None
    with RedisServer.start(BINARY, tmp_path, None, *DURABLE, tls=TlsFiles.create(tmp_path / "tls")) as server:
        async with Proxy(server.port) as proxy:
            told = await fault_round(server, proxy, [nemesis], 1, tmp_path / "home", record_property)
    assert told.outcomes[Outcome.DONE] >= 2 * MORE
