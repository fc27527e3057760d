"""Memory over a long time: what is different in each request leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import monotonic, time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from tests.benchmarks.load import memory_of
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer, binaries
from tests.support.serving import Serving
from tests.support.serving import run as command
from tests.support.subscribers import CHANGES
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "6"))
"""Of about a minute each: 60 of them are an hour's worth."""
MOST = 20.0
"""Megabytes that the server may have more after any later round than after the second."""
WARM = 100
"""Operations before the first measurement, which load what is loaded at the first use."""
FILTERED = "query ($f: RunFilter, $n: Int) { runs(first: $n, filter: $f) { totalCount nodes { id workspace } } }"
DOCUMENTS, TOKENS, STREAMS, CHANGED = 10_000, 500, 300, 5_000


@pytest.mark.soak
async def test_memory_is_level(tmp_path: Path) -> None:
    """Unique documents, invalid ones, variables, tokens, event streams and changes, round after round."""
    numbers, tokens_file, home = count(), tmp_path / "tokens.toml", tmp_path / "home"
    made = command(home, "token", "create", "--file", str(tokens_file), "--name", "soak", "--role", "READ")
    token = made.stdout.split()[-1]
    with (
        RedisServer.start(binaries()["redis"], tmp_path / "redis") as redis,
        Serving(home, "--database", redis.url, "--token-file", str(tokens_file), login=True) as server,
    ):
        url = server.url
        writer = RedisWriter(redis.url)
        writer.create(study(1), *(run(number, study_id=uid(1)) for number in range(100)))
        limits = httpx.Limits(max_connections=20)
        taken = []
        known = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, headers=known) as client:
            for _ in range(ROUNDS):
                await asyncio.gather(
                    documents(client, numbers), tokens(client, numbers), streams(client), changes(writer, numbers)
                )
                taken.append(round(memory_of(server.process.pid), 1))
                print("megabytes:", taken[-1], flush=True)
        writer.close()
    assert max(taken[1:]) - taken[1] <= MOST, taken


@pytest.mark.parametrize("times", [300, pytest.param(100_000, marks=pytest.mark.soak)], ids=["short", "long"])
async def test_what_comes_only_once_leaves_nothing(tmp_path: Path, times: int) -> None:
    """So many unique documents, variables and tokens, sent to a server that has answered a few."""
    home, tokens_file, key = tmp_path / "home", tmp_path / "tokens.toml", Ed25519PrivateKey.generate()
    public = {**json.loads(OKPAlgorithm.to_jwk(key.public_key())), "alg": "EdDSA"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [public]}))
    made = command(home, "token", "create", "--file", str(tokens_file), "--name", "soak", "--role", "READ")
    headers = {"authorization": f"Bearer {made.stdout.split()[-1]}"}
    numbers = count()
    with Serving(
        home, "--demo", "--token-file", str(tokens_file), "--jwks", str(tmp_path / "keys.json"), login=True
    ) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, headers=headers) as client:
            await unique(client, numbers, key, WARM)
            before = memory_of(server.process.pid)
            began = monotonic()
            await unique(client, numbers, key, times)
            after = memory_of(server.process.pid)
            text = (await client.get("/metrics")).text
    print(f"{before:.1f} MB, then {after:.1f} MB, {monotonic() - began:.0f} s")
    print("\n".join(line for line in text.splitlines() if "cache_bytes{" in line))
    assert after - before <= MOST


async def unique(client: httpx.AsyncClient, numbers: Iterator[int], key: Ed25519PrivateKey, times: int) -> None:
    """Each round: a document, variables, and a valid token that nobody has sent before."""

    async def ask() -> None:
        number = next(numbers)
        text = f"query Q{number} {{ a{number}: runs(first: 3) {{ totalCount nodes {{ id status workspace }} }} }}"
        assert (await client.post("/graphql", json={"query": text})).status_code == 200
        variables = {"f": {"workspace": {"contains": str(number)}}, "n": 1 + number % 100}
        body = {"query": FILTERED, "variables": variables}
        assert (await client.post("/graphql", json=body)).status_code == 200
        token = jwt.encode({"sub": str(number), "exp": time() + 300, "roles": "READ"}, key, "EdDSA")
        own = {"authorization": f"Bearer {token}"}
        assert (await client.post("/graphql", json=body, headers=own)).status_code == 200

    for _ in range(times // 10):
        await asyncio.gather(*(ask() for _ in range(10)))


async def documents(client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
    """Each is another one, in its text or in its variables; one in ten is invalid."""

    async def ask(number: int) -> None:
        text = (
            f"query Q{number} ($n: Int!) {{ a{number}: runs(first: $n) {{ totalCount nodes {{ id status }} }} }}",
            "query Q ($f: RunFilter) { runs(first: 5, filter: $f) { nodes { id workspace } } }",
            f"{{ nothing{number} }}",
        )[min(number % 10, 2) if number % 10 in (1, 9) else 0]
        variables = {"n": 1 + number % 50, "f": {"workspace": {"contains": str(number)}}}
        answer = await client.post("/graphql", json={"query": text, "variables": variables})
        assert answer.status_code in (200, 400)

    for _ in range(DOCUMENTS // 20):
        await asyncio.gather(*(ask(next(numbers)) for _ in range(20)))


async def tokens(client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
    """Wrong ones; most are refused for being too many."""
    for _ in range(TOKENS):
        headers = {"authorization": f"Bearer wrong-{next(numbers)}"}
        answer = await client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
        assert answer.status_code in (401, 429)


async def streams(client: httpx.AsyncClient) -> None:
    """Each is read until its first event, and left."""
    headers = {"accept": "text/event-stream"}
    body = {"query": CHANGES, "variables": {"snapshot": True}}
    for _ in range(STREAMS):
        async with client.stream("POST", "/graphql", json=body, headers=headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    break


async def changes(writer: RedisWriter, numbers: Iterator[int]) -> None:
    """Runs that come and go."""
    for _ in range(CHANGED // 50):
        records = [run(1_000 + next(numbers), study_id=uid(1)) for _ in range(50)]
        await asyncio.to_thread(writer.create, *records)
        for record in records:
            await asyncio.to_thread(writer.client.delete, f"run:{record.id}")
        await asyncio.to_thread(writer.client.hdel, "run:name", *(record.workspace for record in records))
