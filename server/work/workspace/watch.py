"""One run whose workspace is looked at, and how often."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, NamedTuple

from server.work.workspace.content import WorkspaceContent
from server.work.workspace.scanner import Scanner

ASKED_FOR: Final = 60.0
"""Seconds after the last question for which a run counts as asked for."""
_SHORTEST, _SHORTEST_UNASKED = 0.3, 2.0
"""Seconds between two looks at a run that changes."""
_LONGEST, _LONGEST_UNASKED = 1.0, 60.0
"""Seconds between two looks at one that does not."""
_FINISHED, _FINISHED_UNASKED = 15.0, 60.0
"""Seconds between two looks at a run that is finished though not all its tasks are done: after a hard failure, or a
cancellation, the rest may go on."""
_GOES_ON = 3600.0
"""Seconds without a change after which that is given up."""
_LATE = 10.0
"""Seconds for which tasks of a run may still write after it was finished."""
_REFRESH = 10.0
"""Seconds after which a content that did not change is told again, to say of when it is."""


class Pace(NamedTuple):
    """What reading may take."""

    share: float
    """Of a core."""
    calls: float
    """To the file system, a second."""

    def pause(self, work: Slice, elapsed: float) -> float:
        """Seconds to wait after a slice that took so long."""
        return max(work.processor / self.share, work.calls / self.calls) - elapsed


class Slice(NamedTuple):
    """What was done in one go."""

    processor: float
    """Seconds."""
    calls: int
    has_ended: bool
    """Whether a round ended with it."""
    content: WorkspaceContent | None
    """What is known after the round, if that is to be told."""


class Watch:
    def __init__(self, run_id: str, scanner: Scanner, now: float) -> None:
        self.run_id = run_id
        self.scanner = scanner
        self.due = now
        """When the next look begins, or goes on."""
        self.turn = 0
        """When it was its turn last, counted."""
        self.asked_until = 0.0
        self.is_awaited = False
        """Whether somebody waits for the first round."""
        self.first_round = asyncio.Event()
        """Set when it has ended."""
        self._finished_at: float | None = None
        self._calm = 0
        """Rounds since something changed."""
        self._changed_at = now
        self._content: WorkspaceContent | None = None

    @property
    def was_finished(self) -> bool:
        """Whether the run was finished when its last round ended."""
        return self._finished_at is not None

    def work(self, seconds: float) -> Slice:
        """Goes on reading for about so long. It blocks."""
        began, calls = time.thread_time(), self.scanner.calls
        has_ended = self.scanner.advance(seconds)
        content = None
        if has_ended:
            content = self.scanner.take_content()
            self._calm = 0 if content is not None else self._calm + 1
            self._changed_at = self._changed_at if self._calm else time.monotonic()
            if content is None and self._is_old():
                content = self.scanner.content()
            self._content = content or self._content
        return Slice(time.thread_time() - began, self.scanner.calls - calls, has_ended, content)

    def end_round(self, now: float, *, is_finished: bool) -> bool:
        """Says when the next look is due; False if there is none. `is_finished`: by the run's record."""
        self.first_round.set()
        self.is_awaited = False
        if not is_finished:
            self.due = now + self._interval(now)
            return True
        if self._finished_at is None:
            self._finished_at = now
        if now < self._finished_at + _LATE:
            self.due = now + _LONGEST
            return True
        self.due = now + (_FINISHED if now < self.asked_until else _FINISHED_UNASKED)
        is_done = self._content is not None and self._content.progress.fraction == 1
        return not is_done and now < self._changed_at + _GOES_ON

    def _interval(self, now: float) -> float:
        if now < self.asked_until:
            return min(_SHORTEST * (1 << min(self._calm, 9)), _LONGEST)
        return min(_SHORTEST_UNASKED * (1 << min(self._calm, 9)), _LONGEST_UNASKED)

    def _is_old(self) -> bool:
        return self._content is not None and (datetime.now(UTC) - self._content.as_of).total_seconds() > _REFRESH
