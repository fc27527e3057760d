"""docs/beside-merlin.md says what really happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.merlin_site import MerlinSite
from tests.overwrites import on_the_page, tables
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio


async def test_the_page_says_who_overwrites_what(redis_server: RedisServer, tmp_path: Path) -> None:
    """Its tables are what real Merlin does to changes and deletions; `python -m tests.overwrites --write` mends them."""
    with MerlinSite(tmp_path / "home", redis_server.url) as site:
        assert (await tables(site)).strip() == on_the_page()
