"""Replicas that have confirmed what one request wrote: the writer notes them, and the response tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_COUNT: ContextVar[Confirmations | None] = ContextVar("confirmations", default=None)


@dataclass(slots=True)
class Confirmations:
    """Of all writes of a request."""

    wanted: int = 0
    confirmed: int | None = None
    """The number of replicas that confirmed in time, for the write that fewest have confirmed; None: nothing asked."""

    def as_extension(self) -> dict[str, int] | None:
        """None where enough replicas confirmed each write, or none were asked for."""
        if self.confirmed is None or self.confirmed >= self.wanted:
            return None
        return {"wanted": self.wanted, "confirmed": self.confirmed}


@contextmanager
def confirmations() -> Iterator[Confirmations]:
    """Collects what `note` is told meanwhile, also by tasks that begin in the block."""
    found = Confirmations()
    token = _COUNT.set(found)
    try:
        yield found
    finally:
        _COUNT.reset(token)


def note(wanted: int, confirmed: int) -> None:
    """Notes how many replicas have confirmed one write."""
    if (found := _COUNT.get()) is not None:
        found.wanted = wanted
        found.confirmed = confirmed if found.confirmed is None else min(found.confirmed, confirmed)
