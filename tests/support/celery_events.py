"""Celery's events as its workers publish them: with Celery's own dispatcher, in the process of the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.events.dispatcher import EventDispatcher


class FakeWorker:
    """Publishes what a worker of this name would. The process id is that of the test unless `pid` is set."""

    def __init__(self, url: str, name: str, **transport_options: Any) -> None:
        self._app = Celery(broker=url, set_as_current=False)
        self._app.conf.broker_transport_options = transport_options
        self._connection = self._app.connection_for_write()
        self._dispatcher = EventDispatcher(
            self._connection, hostname=name, app=self._app, buffer_while_offline=False, buffer_group=["task"]
        )
        self.pid = os.getpid()

    def say(self, type_: str, **fields: Any) -> None:
        """`type_`: such as `worker-heartbeat`. Events of tasks are kept until `flush`, as a worker keeps them."""
        usual = {"freq": 2.0, "active": 0, "processed": 0, "loadavg": (0.5, 0.25, 0.125)}
        self._dispatcher.pid = self.pid
        self._dispatcher.send(type_, **(fields if type_.startswith("task-") else usual | fields))

    def flush(self) -> None:
        self._dispatcher.flush()

    def close(self) -> None:
        self._dispatcher.close()
        self._connection.release()
        self._app.close()


@contextmanager
def fake_worker(url: str, name: str, **transport_options: Any) -> Iterator[FakeWorker]:
    worker = FakeWorker(url, name, **transport_options)
    try:
        yield worker
    finally:
        worker.close()
