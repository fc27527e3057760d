"""What happened to a run of Merlin, recorded beside the servers that tell of it, and by no code of theirs.

Times are of `time.monotonic`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64decode
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

PRIORITIES = ("", *(f"\x06\x16{priority}" for priority in range(1, 11)))
"""What Celery appends to the name of a queue on Redis."""
ANOTHER_TRY = (None, "MERLIN_RETRY", "MERLIN_RESTART")
"""Return codes with which a task stands as FINISHED until it is tried again."""
REST = 0.01
"""Seconds between two looks, at least."""


@dataclass(frozen=True)
class Snapshot:
    """All status files of a run, read one after the other; tasks that were done once are kept."""

    began: float
    ended: float
    done: int
    failed: int


@dataclass
class Recording:
    """What was seen, in the order of time."""

    workspace: Path
    statuses: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """The last status and return code of each task, by its directory below the workspace."""
    done: dict[str, str] = field(default_factory=dict)
    """The status of the tasks that have ended."""
    snapshots: list[Snapshot] = field(default_factory=list)
    run_statuses: list[tuple[float, str]] = field(default_factory=list)
    """Of the record: the changes."""
    lengths: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """Of each queue: the changes."""
    beats: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """When each process of a worker was heard, by its name and process id."""
    ends: dict[int, float] = field(default_factory=dict)
    """When a process was found to be gone."""
    results: dict[str, Any] = field(default_factory=dict)
    """Of the tasks that Celery has said to have succeeded, by id."""

    def is_running(self, task: str) -> bool:
        return self.statuses.get(task, ("",))[0] == "RUNNING"

    def done_before(self, moment: float) -> int:
        """Tasks of which the files said by then that they have ended."""
        at = bisect_left(self.snapshots, moment, key=lambda snapshot: snapshot.ended)
        return self.snapshots[at - 1].done if at else 0

    def failed_before(self, moment: float) -> int:
        at = bisect_left(self.snapshots, moment, key=lambda snapshot: snapshot.ended)
        return self.snapshots[at - 1].failed if at else 0

    def after(self, moment: float) -> Snapshot:
        """The second one that began then: a file that Merlin moved away from under the first is in it."""
        at = bisect_left(self.snapshots, moment, key=lambda snapshot: snapshot.began) + 1
        return self.snapshots[min(at, len(self.snapshots) - 1)]

    def counts(self) -> dict[str, Counter[str]]:
        """How many tasks of each step ended in which way."""
        counts: dict[str, Counter[str]] = {}
        for path, status in self.done.items():
            counts.setdefault(path.split("/")[0], Counter())[status] += 1
        return counts


@contextmanager
def recording(url: str, workspace: Path, queues: list[str]) -> Iterator[Recording]:
    """Records in threads of its own until the end of the block."""
    recorded = Recording(workspace)
    stopped = threading.Event()
    looks: list[Callable[[redis.Redis], Callable[[], None]]] = [
        lambda _: lambda: _read_files(recorded),
        lambda client: lambda: _look(client, recorded, queues),
        lambda client: lambda: _read_status(client, recorded),
        lambda client: _listener(client, recorded),
    ]
    threads = [threading.Thread(target=_repeat, args=(url, look, stopped)) for look in looks]
    for thread in threads:
        thread.start()
    try:
        yield recorded
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def values_within(changes: list[tuple[float, Any]], first: float, last: float) -> list[Any]:
    """What stood at some moment of an interval."""
    at = bisect_left(changes, first, key=lambda change: change[0])
    return [value for moment, value in changes[max(at - 1, 0) :] if moment <= last]


def _repeat(url: str, look: Callable[[redis.Redis], Callable[[], None]], stopped: threading.Event) -> None:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        act = look(client)
        while not stopped.is_set():
            began = time.monotonic()
            act()
            stopped.wait(max(REST, time.monotonic() - began))


def _read_files(recorded: Recording) -> None:
    began = time.monotonic()
    for directory, _, names in os.walk(recorded.workspace):
        relative = os.path.relpath(directory, recorded.workspace)
        if "MERLIN_STATUS.json" in names and relative not in recorded.done:
            for path, task in _tasks_of(Path(directory) / "MERLIN_STATUS.json"):
                status, code = task["status"], task.get("return_code")
                recorded.statuses[path] = (status, code)
                if status == "FAILED" or (status == "FINISHED" and code not in ANOTHER_TRY):
                    recorded.done[path] = status
    failed = sum(status == "FAILED" for status in recorded.done.values())
    recorded.snapshots.append(Snapshot(began, time.monotonic(), len(recorded.done), failed))


def _tasks_of(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """None if it is gone, or is being written."""
    try:
        return tasks_in(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return []


def tasks_in(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The tasks of a status file, or of what Merlin dumps, by their directories below the workspace."""
    return [
        (path.rstrip("/"), task)
        for step in content.values()
        for path, task in step.items()
        if isinstance(task, dict) and "status" in task
    ]


def _look(client: redis.Redis, recorded: Recording, queues: list[str]) -> None:
    for queue in queues:
        length = sum(int(str(client.llen(queue + priority))) for priority in PRIORITIES)
        _note(recorded.lengths.setdefault(queue, []), length)
    for _, pid in list(recorded.beats):
        if pid not in recorded.ends and not _exists(pid):
            recorded.ends[pid] = time.monotonic()


def _read_status(client: redis.Redis, recorded: Recording) -> None:
    for key in client.scan_iter("run:*", count=1000):
        workspace, status = client.hmget(key, "workspace", "run_status")
        if workspace == str(recorded.workspace):
            _note(recorded.run_statuses, status)


def _note(changes: list[tuple[float, Any]], value: Any) -> None:
    if not changes or changes[-1][1] != value:
        changes.append((time.monotonic(), value))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _listener(client: redis.Redis, recorded: Recording) -> Callable[[], None]:
    listening: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # has no types
    listening.psubscribe("/0.celeryev/*")

    def hear() -> None:
        while (message := listening.get_message(timeout=0.05)) is not None:
            body = json.loads(b64decode(json.loads(message["data"])["body"]))
            for event in body if isinstance(body, list) else [body]:
                if event["type"].startswith("worker-"):
                    heard = recorded.beats.setdefault((event["hostname"], event["pid"]), [])
                    heard.append(time.monotonic())
                elif event["type"] == "task-succeeded":
                    recorded.results[event["uuid"]] = event["result"]

    return hear
