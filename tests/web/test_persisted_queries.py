"""Automatic persisted queries, as Apollo Client and urql send them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.javascript import asked, needs, project
from tests.support.live import serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent


@pytest.mark.parametrize("use_get", [False, True], ids=["POST", "GET"])
@pytest.mark.parametrize(
    "client",
    [
        pytest.param("apollo", marks=needs("@apollo/client")),
        pytest.param("urql", marks=needs("@urql/exchange-persisted")),
    ],
)
async def test_a_document_is_sent_once(tmp_path: Path, client: str, use_get: bool) -> None:
    """The first client sends the hash, then the document with it; the second one sends the hash alone."""
    directory = project(tmp_path / client, HERE / client / "persisted.js")
    async with serving(await memory_of()) as live:
        told = await asked(directory, "persisted.js", {"url": live.http, "useGet": use_get})
    methods, with_document = zip(*told["sent"], strict=True)
    assert with_document == (False, True, False)
    assert {methods[0], methods[2]} == {"GET" if use_get else "POST"}
    assert told["answers"] == [["READ", "WRITE", "ADMIN"]] * 2
