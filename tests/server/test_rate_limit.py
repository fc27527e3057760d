"""How often a client may ask."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth import rate_limit
from server.auth.rate_limit import RateLimit
from server.settings import Settings
from tests.support.live import serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 1000), st.lists(st.floats(0, 20, allow_nan=False), max_size=60))
def test_no_more_are_allowed_than_the_limit_says(per_minute: int, pauses: list[float]) -> None:
    """However they come: at once what a minute allows, and then what time has brought."""
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    allowed = 0
    for pause in pauses:
        clock.now += pause
        allowed += limit.wait("a") == 0.0
        assert allowed <= per_minute + (clock.now - 100.0) * per_minute / 60 + 1e-6


@given(st.integers(1, 1000))
def test_a_refusal_says_when_to_try_again(per_minute: int) -> None:
    """And then it is allowed."""
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    assert [limit.wait("a") for _ in range(per_minute)] == [0.0] * per_minute
    wait = limit.wait("a")
    assert 0 < wait <= 60 / per_minute + 1e-6
    clock.now += wait * 0.9
    assert limit.wait("a") > 0
    clock.now += wait * 0.1 + 1e-6
    assert limit.wait("a") == 0.0


def test_clients_do_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only so many are remembered."""
    monkeypatch.setattr(rate_limit, "_MAX_CLIENTS", 2)
    limit = RateLimit(1, Clock())
    assert [limit.wait(who) == 0.0 for who in "aabbccaa"] == [True, False] * 4
    assert len(limit._buckets) == 2


async def test_too_many_requests_are_told_when_to_come_again() -> None:
    """429 with Retry-After."""
    async with (
        serving(await memory_of(), settings=Settings(no_auth=True, rate_limit=2)) as live,
        httpx.AsyncClient() as client,
    ):
        answers = [await client.post(live.http, json={"query": "{ __typename }"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        (error,) = answers[2].json()["errors"]
        assert error["extensions"] == {"code": "RATE_LIMITED"}
