"""Histories: how what several servers see of a run becomes one history, and what is read of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.database.histories import (
    MAX_CHANGES,
    Histories,
    Sighting,
    StatusChange,
    history_of,
    instant,
    merged,
    read_history,
)
from server.database.models import RunStatus

I, Q, R, C, X, F = (  # noqa: E741 - as they are abbreviated everywhere
    RunStatus.INITIALIZED,
    RunStatus.QUEUED,
    RunStatus.RUNNING,
    RunStatus.COMPLETED,
    RunStatus.CANCELLED,
    RunStatus.FAILED,
)
TOLERANCE = 5_000
"""Milliseconds."""


def seen(status: RunStatus, at: int) -> Sighting:
    return Sighting(StatusChange(status, at), at - TOLERANCE, at + TOLERANCE)


def noticed(status: RunStatus, at: int, since: int = 0) -> Sighting:
    return Sighting(StatusChange(status, at, is_late=True), since - TOLERANCE, at + TOLERANCE)


def stored(*changes: tuple[RunStatus, int] | tuple[RunStatus, int, bool]) -> str:
    return history_of([StatusChange(*change) for change in changes]).text


def after(text: str | None, *sightings: Sighting) -> list[tuple[Any, ...]]:
    history = merged(read_history(text), sightings)
    assert history is not None
    return [tuple(change) if change.is_late else tuple(change)[:2] for change in history.changes]


def test_a_history_is_json_that_anybody_can_read() -> None:
    """Status, seconds since 1970, and 1 for a late one."""
    text = stored((R, 1764147379554), (C, 1764147384682, True))
    assert json.loads(text) == [["RUNNING", 1764147379.554], ["COMPLETED", 1764147384.682, 1]]
    history = read_history(text)
    assert history is not None
    assert history.changes == (StatusChange(R, 1764147379554), StatusChange(C, 1764147384682, is_late=True))
    assert instant(1764147379554).isoformat() == "2025-11-26T08:56:19.554000+00:00"


FOREIGN = [
    "",
    "{}",
    "[",
    "[]",
    "nonsense",
    "null",
    "[1]",
    "[[]]",
    '["RUNNING"]',
    '[["RUNNING"]]',
    '[["RUNNING", null]]',
    '[["RUNNING", "1"]]',
    '[["RUNNING", -1]]',
    '[["RUNNING", 1e300]]',
    '[["RUNNING", 1e12]]',
    '[["RUNNING", NaN]]',
    '[["RUNNING", Infinity]]',
    '[["RUNNING", 1, 2]]',
    '[["RUNNING", 1, 1, 1]]',
    '[["running", 1]]',
    '[["RUNNING", 1], ["PAUSED", 2]]',
    '[["RUNNING", [1]]]',
    '[[["RUNNING"], 1]]',
    '[{"RUNNING": 1}]',
    f"[{'[' * 5000}",
    f'[["RUNNING", {"9" * 5000}]]',
    "[" + ", ".join(['["RUNNING", 1]'] * 10_000) + "]",
    '{"version": 2, "changes": []}',
]


@pytest.mark.parametrize("text", FOREIGN)
def test_what_is_no_history_shows_nothing_and_stays(text: str) -> None:
    """Whoever wrote it, such as a later version: no error, and nothing is written over it."""
    history = read_history(text)
    assert history is not None
    assert history.changes == ()
    assert (history.last, history.started, history.finished, history.has_failed) == (None, None, None, False)
    assert merged(history, [seen(R, 10), seen(C, 20)]) is history


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_text_is_an_error(text: str) -> None:
    """Whatever is stored."""
    history = read_history(text)
    assert history is not None
    assert all(change.at.timestamp() >= 0 for change in history.changes)


@pytest.mark.parametrize(
    ("changes", "started", "finished", "has_failed"),
    [
        ([(I, 1), (Q, 2), (R, 3)], 3, None, False),
        ([(R, 3), (C, 9)], 3, 9, False),
        ([(R, 3), (F, 5), (C, 9)], 3, 9, True),
        ([(R, 3), (C, 5), (Q, 6), (R, 7)], 3, None, False),
        ([(R, 3), (C, 5), (Q, 6), (R, 7), (C, 9)], 3, 9, False),
        ([(R, 3, True), (C, 9)], None, 9, False),
        ([(R, 3), (C, 9, True)], 3, None, False),
        ([(C, 3, True), (Q, 6), (R, 7), (C, 9)], None, 9, False),
        ([(C, 3)], None, 3, False),
        ([(Q, 1), (X, 2), (Q, 6), (R, 7), (X, 9)], 7, 9, False),
        ([(F, 1, True), (C, 2)], None, 2, True),
    ],
)
def test_what_is_derived(
    changes: Sequence[tuple[Any, ...]], started: int | None, finished: int | None, has_failed: bool
) -> None:
    """The first start that was seen, the present end, and any failure; a late time is none."""
    history = read_history(stored(*changes))
    assert history is not None
    assert (history.started, history.finished, history.has_failed) == (started, finished, has_failed)
    last = changes[-1][0]
    assert history.finished_as(last) == finished
    assert history.finished_as(R if last is C else C) is None
    both = None if started is None or finished is None else finished - started
    assert history.duration_as(last) == both


@pytest.mark.parametrize(
    ("before", "sightings", "expected"),
    [
        (None, [seen(R, 10)], [(R, 10)]),
        ([(R, 10)], [seen(R, 400)], [(R, 10)]),
        ([(R, 10)], [seen(R, 10), seen(F, 30), seen(C, 5000)], [(R, 10), (F, 30), (C, 5000)]),
        ([(R, 10), (C, 5000)], [seen(R, 90), seen(F, 80), seen(C, 5100)], [(R, 10), (F, 80), (C, 5000)]),
        ([(R, 1000)], [seen(R, 100), seen(F, 120)], [(R, 1000), (F, 1000)]),
        ([(R, 10), (Q, 20), (R, 30)], [seen(R, 15), seen(Q, 25), seen(R, 35)], [(R, 10), (Q, 20), (R, 30)]),
        ([(R, 2100)], [seen(R, 0), seen(Q, 1000), seen(R, 2000)], [(R, 0), (Q, 1000), (R, 2100)]),
        ([(C, 0), (R, 1000)], [seen(R, 1100), seen(C, 2000)], [(C, 0), (R, 1000), (C, 2000)]),
        ([(R, 0), (C, 1000), (R, 9000)], [seen(C, 9500)], [(R, 0), (C, 1000), (R, 9000), (C, 9500)]),
        ([(R, 0), (C, 9000)], [noticed(C, 90_000)], [(R, 0), (C, 9000)]),
        ([(R, 0), (C, 90_000, True)], [seen(C, 9000)], [(R, 0), (C, 9000)]),
        ([(R, 0), (C, 90_000, True)], [noticed(C, 80_000)], [(R, 0), (C, 90_000, True)]),
        (
            [(R, 0), (C, 1000), (R, 50_000)],
            [noticed(C, 90_000, since=60_000)],
            [(R, 0), (C, 1000), (R, 50_000), (C, 90_000, True)],
        ),
    ],
)
def test_what_one_server_saw_is_added_once(
    before: list[tuple[Any, ...]] | None, sightings: list[Sighting], expected: list[tuple[Any, ...]]
) -> None:
    """What is stored stands; in time is better than late; the order is that in which each server saw them."""
    text = None if before is None else stored(*before)
    assert after(text, *sightings) == expected
    again = history_of([StatusChange(*change) for change in after(text, *sightings)]).text
    assert after(again, *sightings) == expected


def test_a_long_history_keeps_what_is_derived_of_it() -> None:
    """Of 300 changes the first and the last are kept, with a failure and the first start between them."""
    changes = [StatusChange(Q, number) for number in range(300)]
    changes[30], changes[90], changes[120], changes[299] = (
        StatusChange(R, 30),
        StatusChange(F, 90),
        StatusChange(R, 120),
        StatusChange(C, 299),
    )
    text: str | None = None
    for change in changes:
        history = merged(
            read_history(text), [seen(change.status, change.milliseconds)._replace(earliest=change.milliseconds)]
        )
        assert history is not None
        text = history.text
        assert len(history.changes) <= MAX_CHANGES
    history = read_history(text)
    assert history is not None
    assert (history.started, history.finished, history.has_failed) == (30, 299, True)
    assert history.changes[:20] == tuple(changes[:20])
    assert history.changes[-70:] == tuple(changes[-70:])


class Site:
    """Servers that see the changes of one run, each by its own clock, and store them in any order."""

    def __init__(self, servers: int) -> None:
        self.text: str | None = None
        self.copies = [Histories(lambda _id, _before: None) for _ in range(servers)]

    def store(self, server: int) -> None:
        history = merged(read_history(self.text), self.copies[server].sightings("a"))
        if history is not None:
            self.text = history.text
        self.read(server)

    def read(self, server: int) -> None:
        self.copies[server].set_stored("a", self.text)

    def settle(self) -> None:
        """Each stores what it has, then each reads."""
        for server in range(len(self.copies)):
            self.store(server)
        text = self.text
        for server in range(len(self.copies)):
            self.store(server)
        assert self.text == text, "What is stored doesn't change any more."

    @property
    def shown(self) -> list[RunStatus]:
        histories = [copy.get("a") for copy in self.copies]
        assert all(history is not None and history.text == self.text for history in histories)
        (first, *_) = histories
        assert first is not None
        times = [change.milliseconds for change in first.changes]
        assert times == sorted(times)
        return [change.status for change in first.changes]


def differing(statuses: Sequence[RunStatus]) -> list[RunStatus]:
    return [one for place, one in enumerate(statuses) if not place or statuses[place - 1] is not one]


STATUSES = st.lists(st.sampled_from([I, Q, R, C, F, X]), min_size=1, max_size=6).map(differing)


@given(
    STATUSES,
    st.lists(st.integers(0, 3000), min_size=6, max_size=6),
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=3),
    st.integers(1, 3),
    st.data(),
)
def test_servers_that_see_everything_agree_on_each_change_once(
    statuses: list[RunStatus], gaps: list[int], skews: list[int], servers: int, data: st.DataObject
) -> None:
    """Whatever the order in which they look, store and read, and however fast one change follows another."""
    site = Site(servers)
    next_of = [0] * servers
    at = 10_000_000
    times = [at := at + gap for gap in gaps]
    while any(number < len(statuses) for number in next_of):
        server = data.draw(st.integers(0, servers - 1))
        match data.draw(st.sampled_from(["see", "see", "store", "read"])):
            case "see" if next_of[server] < len(statuses):
                number = next_of[server]
                next_of[server] += 1
                site.copies[server].see("a", seen(statuses[number], times[number] + skews[server]))
            case "store":
                site.store(server)
            case "read":
                site.read(server)
    site.settle()
    assert site.shown == statuses


@given(
    STATUSES,
    st.lists(st.sets(st.integers(0, 5), max_size=5), min_size=3, max_size=3),
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=3),
    st.integers(1, 3),
    st.data(),
)
def test_servers_that_miss_some_have_all_that_any_of_them_saw(
    statuses: list[RunStatus], missed: list[set[int]], skews: list[int], servers: int, data: st.DataObject
) -> None:
    """As long as changes are farther apart than clocks, as Merlin's FAILED and COMPLETED are."""
    site = Site(servers)
    anything = False
    for number in range(len(statuses)):
        for server in data.draw(st.permutations(range(servers))):
            if number not in missed[server]:
                anything = True
                site.copies[server].see("a", seen(statuses[number], 10_000_000 + 5_000 * number + skews[server]))
            if data.draw(st.booleans()):
                site.store(server)
    if not anything:
        return
    site.settle()
    saw = [number for number in range(len(statuses)) if any(number not in missed[server] for server in range(servers))]
    assert site.shown == [statuses[number] for number in saw]


def test_a_copy_shows_what_it_saw_before_it_is_stored() -> None:
    """And tells the digest of each change; a run that goes leaves only what is stored."""
    told: list[str | None] = []
    copy = Histories(lambda _id, before: told.append(before))
    assert copy.see("a", seen(R, 10))
    first = copy.get("a")
    assert first is not None
    assert (first.started, list(copy.unstored), told) == (10, ["a"], [None])
    assert not copy.set_stored("a", first.text), "Read back as it was shown"
    assert list(copy.unstored) == []
    assert not copy.set_stored("a", stored((R, 40))), "The same change by another clock is no news"
    history = copy.get("a")
    assert history is not None
    assert (history.started, told) == (40, [None, first.text])
    copy.see("a", seen(C, 9000))
    copy.forget_seen("a")
    assert [change.status for change in copy.get("a").changes] == [R]  # type: ignore[union-attr]  # it is there
    assert copy.set_stored("a", None)
    assert list(copy) == []
