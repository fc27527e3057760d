"""Threads for calls that may hang for ever, such as those of a network file system."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


class ThreadsHangError(OSError):
    """All threads are held by functions that nobody waits for any more."""


class DaemonThreads:
    """At most so many at a time. A function that hangs keeps its thread, and later ones get what is left."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._abandoned = 0

    async def run(self, function: Callable[[threading.Event], Result]) -> Result:
        """What the function returns or raises, once there is a thread for it.

        It is given an event that is set when this is cancelled: from then on it must change nothing.
        Raises `ThreadsHangError`.
        """
        if self._abandoned >= self._most:
            raise ThreadsHangError(f"{self._most} earlier calls to the file system still hang")
        await self._free.acquire()
        given_up = threading.Event()
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        work = partial(self._work, asyncio.get_running_loop(), partial(function, given_up), done)
        try:
            threading.Thread(target=work, name="workspace", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            self._free.release()
            raise ThreadsHangError(str(error)) from error
        try:
            return await done
        except asyncio.CancelledError:
            given_up.set()
            if done.cancelled():  # else it has just ended
                self._abandoned += 1
            raise

    def _work(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[], Result], done: asyncio.Future[Result]
    ) -> None:
        try:
            settle = partial(done.set_result, function())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the function was asked for
            settle = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended meanwhile, and whoever waited with it
            loop.call_soon_threadsafe(self._end, settle, done)

    def _end(self, settle: Callable[[], None], done: asyncio.Future[Result]) -> None:
        self._free.release()
        if done.cancelled():
            self._abandoned -= 1
        else:
            settle()
