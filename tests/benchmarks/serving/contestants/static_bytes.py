"""(d) The floor: bytes that are there already, sent for every request once that has been read."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.benchmarks.serving.contestants.plain import App, answering

ANSWER = "BENCH_ANSWER"
"""The variable of the environment that names a file: the answer to every request."""


@asynccontextmanager
async def opened(_url: str) -> AsyncIterator[App]:
    content = Path(os.environ[ANSWER]).read_bytes()

    async def answer(_body: bytes) -> bytes:
        return content

    yield answering(answer)
