"""Merlin's MERLIN_STATUS.json: of one task, or condensed, of all samples of a step and its parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import orjson

from server.database.workspaces import TaskStatus

T = TypeVar("T")
NAME: Final = "MERLIN_STATUS.json"
MAX_SMALL = 2**16
"""Bytes of a file that is read as JSON, at once; larger ones are read in pieces."""
MAX_SIZE = 2**30
"""Bytes. 180 a task are usual."""
PIECE = 2**17
"""Bytes that are read at a time: parsed at once, a file of 100,000 tasks would stop all other threads for 0.1 s."""

_NO_TASKS = frozenset({"parameters", "task_queue", "workers", "worker_name", "avg_run_time", "run_time_std_dev"})
_STATUSES: Mapping[str, TaskStatus] = {
    "INITIALIZED": TaskStatus.WAITING,  # its directory is made; it runs next
    "RUNNING": TaskStatus.RUNNING,
    "FAILED": TaskStatus.FAILED,
    "CANCELLED": TaskStatus.CANCELLED,
    "DRY_RUN": TaskStatus.DRY_RUN,
}
_SUCCESS = "MERLIN_SUCCESS"
_ANOTHER_TRY = frozenset({None, "MERLIN_RETRY", "MERLIN_RESTART"})
_FAILURES = ("MERLIN_SOFT_FAIL", "MERLIN_HARD_FAIL")
_TIME = re.compile(r"(\d{1,6})d:(\d{1,2})h:(\d{1,2})m:(\d{1,2})s")
_MAX_SECONDS = 2**31 - 1
_MAX_RESTARTS = 2**15 - 1
_MAX_TEXT = 200
"""Characters of a return code or of the name of a worker, and workers of a task."""
_BEGIN, _END = '": ', '}, "'
_ENTRY = re.compile(r'(?:^|")([^"\\]{1,4096})": (\{"status": [^{}]{0,4096}\})')
"""A task in what Merlin's `json.dump` writes, in a part between two `_END`. Its names are ASCII."""
_MAX_ENTRY = 2**13 + 64
_MAX_CACHED = 10_000


class Entry(NamedTuple):
    """What a file says of one task."""

    status: TaskStatus
    return_code: str | None
    run_time: int | None
    """Seconds."""
    elapsed: int | None
    """Seconds."""
    restarts: int | None
    workers: tuple[str, ...]


class StatusParser(Generic[T]):
    """Finds entries without parsing all of a file: most tasks have the same few.

    It gives what `encode` makes of each entry, once for all equal ones.
    """

    def __init__(self, encode: Callable[[Entry], T]) -> None:
        self._encode = encode
        self._cache: dict[str, T] = {}

    def entries_of(self, text: bytes) -> list[tuple[str, T]]:
        """The tasks of a whole file, with their paths below the workspace.

        Raises ValueError for what is no JSON, such as a file that is being written, or not of this form.
        """
        if text.endswith(b"}}}") and (found := self._find(text.decode("latin-1").split(_END))):
            return found
        content = orjson.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no object")  # noqa: TRY004 - all that is wrong with a file is one error
        return [
            (path.rstrip("/"), self._encode(entry_of(value)))
            for step in content.values()
            if isinstance(step, dict)
            for path, value in step.items()
            if path not in _NO_TASKS and isinstance(value, dict) and "status" in value
        ]

    def entries_in(self, text: bytes) -> tuple[list[tuple[str, T]], bytes]:
        """The tasks that end in a piece of a file, and the rest of it, to be put before the next piece."""
        parts = text.decode("latin-1").split(_END)
        rest = parts.pop() if not text.endswith(b"}}") else ""
        return self._find(parts), rest[-_MAX_ENTRY:].encode("latin-1")

    def _find(self, parts: list[str]) -> list[tuple[str, T]]:
        """In parts of which each ends with an entry, or with something else."""
        cache, found = self._cache, []
        for part in parts:
            path, _, text = part.partition(_BEGIN)
            encoded = cache.get(text)
            if encoded is None:
                match = _ENTRY.search(part + "}")
                if match is None or (encoded := self._parse(match[2])) is None:
                    continue
                path = match[1].rstrip("/")  # a slash ends a single sample's
            found.append((path, encoded))
        return found

    def _parse(self, text: str) -> T | None:
        try:
            encoded = self._encode(entry_of(orjson.loads(text)))
        except orjson.JSONDecodeError:
            return None
        if len(self._cache) < _MAX_CACHED:
            self._cache[text[:-1]] = encoded
        return encoded


def entry_of(value: Mapping[str, Any]) -> Entry:
    """Whatever the values are."""
    return_code = _text(value.get("return_code"))
    status = _status(value.get("status"), return_code)
    workers = value.get("workers", ())
    return Entry(
        status,
        return_code,
        run_time=_seconds(value.get("run_time")),
        elapsed=_seconds(value.get("elapsed_time")) if status.is_done else None,  # garbage as long as it runs
        restarts=_restarts(value.get("restarts")),
        workers=tuple(text for worker in workers[:_MAX_TEXT] if (text := _text(worker)) is not None)
        if isinstance(workers, list)
        else (),
    )


def _status(stored: object, return_code: str | None) -> TaskStatus:
    """A task that waits for another try stands as FINISHED, without a return code."""
    if stored != "FINISHED":
        return _STATUSES.get(stored, TaskStatus.UNKNOWN) if isinstance(stored, str) else TaskStatus.UNKNOWN
    if return_code in _ANOTHER_TRY:
        return TaskStatus.RETRYING
    if return_code == _SUCCESS:
        return TaskStatus.SUCCEEDED
    return TaskStatus.FAILED if str(return_code).startswith(_FAILURES) else TaskStatus.UNKNOWN


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) else None


def _seconds(value: object) -> int | None:
    """Of `Nd:HHh:MMm:SSs`; None for `--:--:--`."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = map(int, match.groups())
    return min(((days * 24 + hours) * 60 + minutes) * 60 + seconds, _MAX_SECONDS)


def _restarts(value: object) -> int | None:
    return min(value, _MAX_RESTARTS) if isinstance(value, int) and value >= 0 else None
