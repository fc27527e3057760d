"""The heartbeat of a connection to Redis: how long its answers may take."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from server.database.backends import redis_heartbeat
from server.database.backends.redis_heartbeat import HEARTBEAT, PATIENCE, Heartbeat


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(redis_heartbeat, "time", clock)
    return clock


def answered(heartbeat: Heartbeat, clock: Clock, after: float) -> bool:
    """Whether the answer was late."""
    heartbeat.ask()
    clock.now += after
    late = heartbeat.is_late()
    heartbeat.note_answer()
    return late


def test_an_answer_is_late_after_a_second(clock: Clock) -> None:
    """Near Redis."""
    heartbeat = Heartbeat()
    assert not answered(heartbeat, clock, HEARTBEAT - 0.1)
    assert answered(heartbeat, clock, HEARTBEAT + 0.1)


def test_a_slow_connection_is_not_late_for_ever(clock: Clock) -> None:
    """Where every answer takes longer than a second, that is what is usual there."""
    heartbeat = Heartbeat()
    lates = [answered(heartbeat, clock, 1.5 * HEARTBEAT) for _ in range(20)]
    assert lates[0]
    assert not any(lates[10:])


def test_a_pause_does_not_hide_the_next(clock: Clock) -> None:
    """One long answer is not what is usual."""
    heartbeat = Heartbeat()
    assert answered(heartbeat, clock, PATIENCE - 1)
    assert answered(heartbeat, clock, HEARTBEAT + 0.1)


def test_patience_ends_in_time(clock: Clock) -> None:
    """A connection that is half open is found within ten seconds, however slow it was: silence, question, patience."""
    heartbeat = Heartbeat()
    for _ in range(20):
        answered(heartbeat, clock, PATIENCE - 1)
    heartbeat.ask()
    clock.now += 10 - 2 * HEARTBEAT
    with pytest.raises(RedisConnectionError):
        heartbeat.is_late()


def test_a_heartbeat_that_was_not_asked_is_not_late(clock: Clock) -> None:
    """Nor one that was answered."""
    heartbeat = Heartbeat()
    states = [(heartbeat.is_asked, heartbeat.is_late())]
    heartbeat.ask()
    states.append((heartbeat.is_asked, heartbeat.is_late()))
    heartbeat.note_answer(is_usual=False)
    clock.now += PATIENCE
    states.append((heartbeat.is_asked, heartbeat.is_late()))
    assert states == [(False, False), (True, False), (False, False)]
