"""A notifier: wakes all tasks that wait for the next change."""

from __future__ import annotations

import asyncio


class Notifier:
    """Wakes all tasks that wait, at each call of `notify`.

    To miss none, take `next` first, then look at the state that it is for, then wait for the event.
    """

    def __init__(self) -> None:
        self.next = asyncio.Event()
        self.also: Notifier | None = None
        """One that notifies at each notification of this one, too."""

    def notify(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
        if self.also is not None:
            self.also.notify()
