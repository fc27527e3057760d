"""A notifier: wakes all tasks that wait for the next change."""

from __future__ import annotations

import asyncio


class Notifier:
    """Wakes all who wait, once a beat.

    Take `next` before looking at what the beat is about, wait for it afterwards: then no beat is missed.
    """

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def notify(self) -> None:
        self.next.set()
        self.next = asyncio.Event()
