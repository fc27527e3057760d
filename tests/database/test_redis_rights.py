"""The rights of a Redis login that docs/writing.md asks for are all that the server needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import opened
from server.database.models import EntityKind
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

WRITING = Path(__file__).parents[2] / "docs" / "writing.md"


def documented() -> tuple[list[str], list[str]]:
    """The patterns of keys and the commands that the page names."""
    (rules,) = re.findall(r"A login with restricted rights.*?```\n(.*?)```", WRITING.read_text(), re.DOTALL)
    return re.findall(r"~(\S+)", rules), re.findall(r"\+\S+", rules)


async def test_the_documented_rights_suffice(redis_server: RedisServer) -> None:
    """Reading, following, writing, annotating, deleting, repairing and looking for problems."""
    patterns, commands = documented()
    with redis_server.client() as client:
        client.acl_setuser(
            "merlin",
            enabled=True,
            reset=True,
            passwords=["+secret"],
            keys=patterns,
            commands=commands,
        )
    url = redis_server.url.replace("redis://", "redis://merlin:secret@")
    async with opened(make_backend(url, BackendOptions())) as database:
        made = await database.runs.create("hello", "/runs/hello_20260101-000000", ["q"])
        await database.annotate(made.id, {"k": 1})
        await database.runs.update(made.id, additional_data={"a": 1})
        assert await database.integrity() == []
        await database.repair(database.unit())
        await database.collect_garbage(database.unit(), tuple(EntityKind))
        await database.delete_everything(database.unit())
        assert len(database.runs) == 0
        assert database.stale_since is None
    with redis_server.client() as client:
        client.acl_deluser("merlin")
