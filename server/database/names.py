"""Rules for names: those that Merlin reads back as they were written, and finds again.

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
    """For what an entity is found by: a study's or worker's name, a workspace. Raises `InvalidValueError`."""
    check_text(field, name)
    if not name.strip():
        raise InvalidValueError("It is empty.", field)
    if _is_uuid(name):
        raise InvalidValueError(f"Merlin would take {name!r} for an id, since it looks like a UUID.", field)


def check_text(field: str, text: str) -> None:
    """For any text field of a record. Raises `InvalidValueError`."""
    if len(text) > _MAX_LENGTH:
        raise InvalidValueError(f"It has {len(text)} characters; {_MAX_LENGTH} are the most.", field)
    if "\0" in text or not _is_unicode(text):
        raise InvalidValueError("It holds characters that are no text.", field)
    misread = _as_merlin_reads(text)
    if misread is not None:
        raise InvalidValueError(f"Merlin would read {text!r} back as {misread}. Choose another.", field)


def check_shown(field: str, text: str) -> None:
    """For what `merlin query-workers` shows: rich takes `[/…]` for the end of a style. Raises `InvalidValueError`."""
    if "[/" in text:
        raise InvalidValueError(f"`merlin query-workers` fails at {text!r}, for its '[/'.", field)


def check_pid(field: str, pid: str) -> None:
    """Merlin reads it as a number, by way of a float (`get_pid`). Raises `InvalidValueError`."""
    if not pid.isdecimal():
        check_text(field, pid)
    try:
        is_endless = isinf(float(pid))
    except ValueError:  # then it is none to Merlin
        return
    if is_endless:
        raise InvalidValueError("Merlin fails at it: it is larger than any number of a process.", field)


def check_worker_name(field: str, name: str) -> None:
    """Raises `InvalidValueError`."""
    check_name(field, name)
    check_shown(field, name)
    if ":" in name:
        raise InvalidValueError("A ':' in it could give two workers one id: Merlin joins name and queues by it.", field)


def check_queue(field: str, queue: str) -> None:
    """Raises `InvalidValueError`."""
    if not queue.strip():
        raise InvalidValueError("The name of a queue is empty.", field)
    check_words(field, (queue,))


def check_words(field: str, words: Iterable[str]) -> None:
    """For texts in a list, which Merlin reads back as they are. Raises `InvalidValueError`."""
    if not all(map(_is_unicode, words)):
        raise InvalidValueError("It holds characters that are no text.", field)


def check_queues(field: str, queues: Collection[str]) -> None:
    """For the queues of a worker, which are part of its id. Raises `InvalidValueError`."""
    if not queues:
        raise InvalidValueError("A worker needs at least one queue.", field)
    for queue in queues:
        check_queue(field, queue)
        check_shown(field, queue)
        if "," in queue:
            raise InvalidValueError(
                f"A ',' in {queue!r} could give two workers one id; Merlin joins the queues by it.", field
            )


def _as_merlin_reads(text: str) -> str | None:
    """What Merlin would take a text for; None where it stays a text."""
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
