"""The databases that are asked: on one Redis server, one for each number of runs, of the same sample data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import redis

from tests.benchmarks.load import add_foreign, fill
from tests.support.servers import RedisServer

_WRITTEN_TO = 1
_FIRST = 2
"""Number 0 is where `add_foreign` puts its keys."""


@dataclass
class Databases:
    server: RedisServer
    _numbers: dict[int, int] = field(default_factory=dict)
    """By the number of runs."""

    def of(self, runs: int) -> str:
        """The URL of one to read from."""
        if runs not in self._numbers:
            self._numbers[runs] = _FIRST + len(self._numbers)
            asyncio.run(fill(self._url(self._numbers[runs]), runs))
        return self._url(self._numbers[runs])

    def fresh(self, runs: int) -> str:
        """The URL of one to write to; what was written before is gone."""
        url = self.empty()
        asyncio.run(fill(url, runs))
        return url

    def with_foreign(self, runs: int, foreign: int) -> str:
        """The URL of one that also holds keys of Celery's, and nobody else's for long: all others are dropped."""
        with self.server.client() as client:
            client.flushall()
        self._numbers.clear()
        asyncio.run(fill(self._url(0), runs))
        add_foreign(self.server, foreign)
        return self._url(0)

    def empty(self) -> str:
        url = self._url(_WRITTEN_TO)
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url

    def _url(self, number: int) -> str:
        return self.server.url_for(database=number)
