"""Rules for names: only names that Merlin reads back unchanged, and finds again, are accepted.

Merlin decodes a stored text by what it looks like (`merlin.backends.utils.deserialize_entity`), and takes an identifier
that looks like a UUID for an id (`ResultsBackend.retrieve`).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from math import isinf

from server.database.errors import InvalidValueError

_MAX_LENGTH = 4096


def check_name(field: str, name: str) -> None:
    """Checks the name of a study or a worker, or a workspace. Raises `InvalidValueError`."""
    check_text(field, name)
    if not name.strip():
        raise InvalidValueError("It is empty.", field)
    if _is_uuid(name):
        raise InvalidValueError(
            f"Merlin would take {name!r} for an id, since it looks like a UUID. Choose another name.", field
        )


def check_text(field: str, text: str) -> None:
    """Checks a text field of a record. Raises `InvalidValueError`."""
    if len(text) > _MAX_LENGTH:
        raise InvalidValueError(f"It has {len(text)} characters, and at most {_MAX_LENGTH} are allowed.", field)
    if "\0" in text or not _is_unicode(text):
        raise InvalidValueError("It has characters that can't be stored: a NUL or half of a surrogate pair.", field)
    misread = _as_merlin_reads(text)
    if misread is not None:
        raise InvalidValueError(f"Merlin would read {text!r} back as {misread}. Choose another text.", field)


def check_shown(field: str, text: str) -> None:
    """Checks a text that `merlin query-workers` shows with rich, which reads `[/…]` as markup.

    Raises `InvalidValueError`.
    """
    if "[/" in text:
        raise InvalidValueError(
            f"`merlin query-workers` would fail because of the '[/' in {text!r}. Choose another text.", field
        )


def check_pid(field: str, pid: str) -> None:
    """Checks a process id, which Merlin converts to a float first (`get_pid`). Raises `InvalidValueError`."""
    if not pid.isdecimal():
        check_text(field, pid)
    try:
        is_infinite = isinf(float(pid))
    except ValueError:  # Merlin then reads it as no process id
        return
    if is_infinite:
        raise InvalidValueError("It is too large for a process id, and Merlin would fail at it.", field)


def check_worker_name(field: str, name: str) -> None:
    """Checks the name of a logical worker. Raises `InvalidValueError`."""
    check_name(field, name)
    check_shown(field, name)
    if ":" in name:
        raise InvalidValueError(
            "With a ':' in it, two workers could have one id: Merlin joins the name and the queues with it.", field
        )


def check_queue(field: str, queue: str) -> None:
    """Checks the name of a queue. Raises `InvalidValueError`."""
    if not queue.strip():
        raise InvalidValueError("The name of a queue is empty.", field)
    check_words(field, (queue,))


def check_words(field: str, words: Iterable[str]) -> None:
    """Checks texts in a list, which Merlin reads back unchanged. Raises `InvalidValueError`."""
    if not all(map(_is_unicode, words)):
        raise InvalidValueError("It has characters that can't be stored: a NUL or half of a surrogate pair.", field)


def check_queues(field: str, queues: Collection[str]) -> None:
    """Checks the queues of a worker, which are part of its id. Raises `InvalidValueError`."""
    if not queues:
        raise InvalidValueError("A worker needs at least one queue.", field)
    for queue in queues:
        check_queue(field, queue)
        check_shown(field, queue)
        if "," in queue:
            raise InvalidValueError(
                f"With the ',' in {queue!r}, two workers could have one id: Merlin joins the queues with it.", field
            )


def _as_merlin_reads(text: str) -> str | None:
    """What Merlin would read a text as; None if it stays a text."""
    if text.startswith(("[", "{")):
        return "JSON"
    if text == "null":
        return "nothing"
    if text in ("True", "False"):
        return "a truth value"
    if text.isdigit():
        return "a number"
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return "a time"


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
