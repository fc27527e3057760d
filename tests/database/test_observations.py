"""Observations of runs: each source replaces its own word, and the best is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from server.database.models import Key
from server.database.observations import Observations, RunObservation
from server.database.workspaces import Progress, Source, TaskStatus

FILES, EVENTS, RESULTS = Source.WORKSPACE_FILES, Source.CELERY_EVENTS, Source.CELERY_RESULTS
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def progress(source: Source, done: int, at: float = 0, total: int | None = None, running: int = 0) -> Progress:
    counts = {TaskStatus.SUCCEEDED: done, TaskStatus.RUNNING: running}
    known = {status: count for status, count in counts.items() if count}
    return Progress(known, total, source, NOON + timedelta(seconds=at))


class Told:
    """What followers were told, beside observations that are set one after the other."""

    def __init__(self, *set_: Progress) -> None:
        self.keys: list[str] = []
        self.observations = Observations(self._observe)
        for one in set_:
            self.set(one)

    def _observe(self, keys: Sequence[Key]) -> None:
        self.keys += [key.id for key in keys]

    def set(self, one: Progress) -> None:
        self.observations.set_runs({"r": RunObservation(one)})

    @property
    def shown(self) -> Progress | None:
        return self.observations.run("r").progress


def test_files_know_better() -> None:
    """Whoever writes last: the other's word is kept, and comes back where that of the files is forgotten."""
    files, events, results = progress(FILES, 3, total=9), progress(EVENTS, 5, 4), progress(RESULTS, 6, 4)
    for order in ((files, events, results), (results, events, files), (events, files, results)):
        told = Told(*order)
        assert told.shown == files
        told.observations.set_runs({"r": None}, FILES)
        assert told.shown == events
        told.observations.set_runs({"r": None})
        assert told.observations.run("r") == RunObservation()


def test_files_that_are_behind() -> None:
    """After five seconds events that know of more tasks that are done count, of the total that the files told.

    However long ago the files changed: they may not have had a reason to.
    """
    files = progress(FILES, 3, total=9)
    told = Told(files, progress(EVENTS, 3, 60), progress(EVENTS, 4, 70), progress(EVENTS, 5, 75))
    assert told.shown == files
    told.set(progress(EVENTS, 6, 76, running=2))
    shown = told.shown
    assert shown is not None
    assert shown.counts == {TaskStatus.SUCCEEDED: 6, TaskStatus.RUNNING: 2, TaskStatus.WAITING: 1}
    assert (shown.total, shown.source, shown.as_of) == (9, EVENTS, NOON + timedelta(seconds=76))
    files = progress(FILES, 4, 77, total=9)
    for one in (files, progress(EVENTS, 7, 78)):
        told.set(one)
        assert told.shown == files


def test_results_of_tasks_that_are_retried_say_nothing_new() -> None:
    """A result may be of a try; files know which tasks wait for another one. More results than those count."""
    files = replace(progress(FILES, 3, total=9), counts={TaskStatus.SUCCEEDED: 3, TaskStatus.RETRYING: 2})
    results = [replace(progress(RESULTS, 0, second), ended=5) for second in (0, 60)]
    assert Told(files, *results).shown == files
    more = [replace(one, ended=6, as_of=one.as_of + timedelta(seconds=60)) for one in results]
    shown = Told(files, *results, *more).shown
    assert shown is not None
    assert (shown.done, shown.source) == (6, RESULTS)


def test_what_counts_less() -> None:
    """Fewer tasks that are done, however new, and more tasks than there are in all."""
    files = progress(FILES, 3, total=4)
    assert Told(files, progress(EVENTS, 2, 0), progress(EVENTS, 3, 60, running=1)).shown == files
    assert Told(files, progress(EVENTS, 5, 0), progress(EVENTS, 6, 60)).shown == files


def test_who_is_told() -> None:
    """Those who follow a run, when it looks different; not when a source says what counts less."""
    told = Told(progress(FILES, 3))
    assert told.keys == ["r"]
    told.set(progress(EVENTS, 3, 1))
    told.set(progress(FILES, 3))
    assert (told.keys, told.observations.revision) == (["r"], 1)
    told.observations.set_runs({"r": None}, EVENTS)
    assert told.observations.revision == 1
    told.observations.set_runs({"r": None, "unknown": None})
    assert told.keys == ["r", "r"]
