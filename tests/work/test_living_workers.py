"""Tests the register of living workers, with times that are passed to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.database.observations import LiveWorker
from server.work import living_workers
from server.work.celery_messages import WorkerEvent, WorkerEventKind
from server.work.living_workers import MEMORY, LivingWorkers

NAME = "celery@sim.%node1"
EPOCH = 1_795_622_643.0
"""By this server's clock, at the moment 0 of the register."""
ONLINE, HEARTBEAT, OFFLINE = WorkerEventKind.ONLINE, WorkerEventKind.HEARTBEAT, WorkerEventKind.OFFLINE


class Register:
    """A register, and what was last taken of each name."""

    def __init__(self) -> None:
        self.register = LivingWorkers()
        self.known: dict[str, tuple[LiveWorker, ...]] = {}

    def hear(self, now: float, kind: WorkerEventKind = HEARTBEAT, **fields: Any) -> bool:
        values: dict[str, Any] = {
            "hostname": NAME,
            "pid": "1",
            "freq": 2.0,
            "active": 0,
            "processed": 0,
            "timestamp": 5.0,
        } | fields
        event = WorkerEvent(kind=kind, loadavg=(1.0, 2.0, 3.0), **values)
        return self.register.note(event, now, EPOCH + now)

    def take(self) -> list[str]:
        """The names that are news."""
        changed = self.register.take(1_000_000)
        self.known |= {one.name: one.workers for one in changed}
        return [one.name for one in changed if one.is_news]

    def states(self, name: str = NAME) -> list[tuple[str | None, bool]]:
        self.take()
        return [(worker.pid, worker.is_alive) for worker in self.known.get(name, ())]


@pytest.fixture
def register() -> Register:
    return Register()


def test_a_beat_shows_a_worker(register: Register) -> None:
    """All that a heartbeat says is shown, and the time is ours, whatever the worker's clock says."""
    register.hear(0.0, active=2, processed=7, timestamp=1.0)
    assert register.take() == [NAME]
    seen_at = datetime.fromtimestamp(EPOCH, UTC)
    assert register.known[NAME] == (LiveWorker(NAME, "1", True, seen_at, 2, 7, (1.0, 2.0, 3.0)),)


def test_silence(register: Register) -> None:
    """A worker that beats every two seconds is dead after eight seconds of silence: what it did then is unknown."""
    register.hear(0.0, active=2, processed=7)
    register.register.look(8.0)
    assert register.states() == [("1", True)]
    register.register.look(8.5)
    assert register.register.is_urgent
    assert register.states() == [("1", False)]
    (worker,) = register.known[NAME]
    assert (worker.active_tasks, worker.processed_tasks, worker.load_average) == (None, 7, None)
    assert worker.last_seen_at == datetime.fromtimestamp(EPOCH, UTC)


@pytest.mark.parametrize(("freq", "grace"), [(1.5, 6), (10.0, 40), (None, 8), (0.0, 8), (1e-9, 4), (1e300, 240)])
def test_each_by_its_own_frequency(register: Register, freq: float | None, grace: float) -> None:
    """A worker may miss four of its own beats, whatever it says within reason."""
    register.hear(0.0, freq=freq)
    register.register.look(float(grace))
    assert register.states() == [("1", True)]
    register.register.look(grace + 0.1)
    assert register.states() == [("1", False)]


def test_a_farewell(register: Register) -> None:
    """A worker that says that it stops is dead at once, and urgent."""
    register.hear(0.0)
    register.take()
    register.hear(1.0, OFFLINE)
    assert register.register.is_urgent
    assert register.take() == [NAME]
    assert register.states() == [("1", False)]


def test_a_relaunch(register: Register) -> None:
    """After kill -9 and a relaunch the new process comes first; the old one dies later, and that is no news."""
    register.hear(0.0, pid="1")
    register.hear(3.0, ONLINE, pid="2")
    assert register.states() == [("2", True), ("1", True)]
    register.hear(9.0, pid="2")
    register.register.look(9.0)
    assert register.take() == []
    assert register.states() == [("2", True), ("1", False)]


def test_a_relaunch_with_the_same_process_id(register: Register) -> None:
    """As in a container, where it is always 1: the process lives again."""
    register.hear(0.0)
    register.hear(1.0, OFFLINE)
    register.take()
    register.hear(2.0, ONLINE)
    assert register.take() == [NAME]
    assert register.states() == [("1", True)]


def test_two_processes_of_one_name(register: Register) -> None:
    """The one that started last comes first, however they beat; when it stops, the other one stands for the name."""
    register.hear(0.0, ONLINE, pid="1")
    register.hear(0.5, ONLINE, pid="2")
    register.take()
    for now in (2.0, 4.0, 6.0):
        register.hear(now, pid="2")
        register.hear(now + 0.5, pid="1")
        assert register.take() == []
        assert register.states() == [("2", True), ("1", True)]
    register.hear(7.0, OFFLINE, pid="2")
    assert register.take() == [NAME]
    assert register.states() == [("1", True), ("2", False)]


def test_news(register: Register) -> None:
    """Other tasks are news; beats that change only times, counts and loads are none, but are taken, too."""
    register.hear(0.0, active=1)
    register.take()
    register.hear(2.0, active=1, processed=5)
    assert register.take() == []
    assert register.known[NAME][0].processed_tasks == 5
    register.hear(4.0, active=2, processed=6)
    assert register.take() == [NAME]


def test_times_when_nothing_could_be_heard(register: Register) -> None:
    """Nobody is declared dead for them: the time of grace begins anew. The dead stay dead."""
    register.hear(0.0, hostname="dead")
    register.register.look(9.0)
    register.hear(9.0)
    register.register.excuse(100.0)
    register.register.look(107.0)
    assert register.states() == [("1", True)]
    assert register.states("dead") == [("1", False)]
    register.register.look(109.0)
    assert register.states() == [("1", False)]


def test_the_dead_are_forgotten(register: Register) -> None:
    """After an hour, which is news; the living are remembered however long they live."""
    register.hear(0.0, OFFLINE)
    register.take()
    register.register.look(MEMORY)
    assert register.states() == [("1", False)]
    register.register.look(MEMORY + 1)
    assert register.take() == [NAME]
    assert register.states() == []


def test_room(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full register forgets the dead that were silent for longest, then it takes no new processes, but old ones."""
    monkeypatch.setattr(living_workers, "MAX_PROCESSES", 4)
    for number in range(4):
        assert register.hear(float(number), ONLINE if number > 1 else OFFLINE, hostname=f"w{number}")
    assert register.hear(5.0, hostname="w4")
    assert register.states("w0") == []
    assert register.states("w1") == [("1", False)]
    assert register.hear(5.0, hostname="w5")
    assert register.states("w1") == []
    assert not register.hear(6.0, hostname="w6")
    assert register.hear(6.0, hostname="w2")
    register.hear(7.0, OFFLINE, hostname="w3")
    assert register.hear(8.0, hostname="w6")
    assert register.states("w3") == []


def test_show_all(register: Register) -> None:
    """When somebody begins or ceases to listen, all look different."""
    register.hear(0.0)
    register.hear(0.0, hostname="other")
    register.take()
    register.register.show_all()
    assert sorted(register.take()) == [NAME, "other"]


def test_some_at_a_time(register: Register) -> None:
    """What is not taken is taken next, in the order in which it was heard."""
    for number in range(5):
        register.hear(0.0, hostname=f"w{number}")
    taken = [[one.name for one in register.register.take(2)] for _ in range(4)]
    assert taken == [["w0", "w1"], ["w2", "w3"], ["w4"], []]


class Histories(RuleBasedStateMachine):
    """What is taken agrees with a plain model, whatever is heard."""

    def __init__(self) -> None:
        super().__init__()
        self.register = Register()
        self.now = 0.0
        self.model: dict[tuple[str, str], tuple[float, bool]] = {}

    @rule(kind=st.sampled_from(WorkerEventKind), name=st.sampled_from("ab"), pid=st.sampled_from("12"))
    def hear(self, kind: WorkerEventKind, name: str, pid: str) -> None:
        self.register.hear(self.now, kind, hostname=name, pid=pid)
        self.model[name, pid] = self.now, kind is not OFFLINE

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.0, MEMORY]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.register.register.look(self.now)
        self.model = {
            key: (heard, is_alive and self.now - heard <= 8.0)
            for key, (heard, is_alive) in self.model.items()
            if is_alive or self.now - heard <= MEMORY
        }

    @invariant()
    def agrees(self) -> None:
        self.register.take()
        found = {
            (name, worker.pid or ""): worker.is_alive
            for name, workers in self.register.known.items()
            for worker in workers
        }
        assert found == {key: is_alive for key, (_, is_alive) in self.model.items()}
        for workers in self.register.known.values():
            assert [worker.is_alive for worker in workers] == sorted(
                (worker.is_alive for worker in workers), reverse=True
            )


TestHistories = Histories.TestCase
TestHistories.settings = settings(deadline=None, max_examples=50)
