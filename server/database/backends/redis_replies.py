"""Requests to Redis that are sent ahead, and how its replies, keys and notices are read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hiredis import PushNotification, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from server.database.backends.base import Changed, Notice, Reload
from server.database.backends.codec import decode, not_a_record
from server.database.backends.notes import FOLLOWED, PREFIX, NoteKey, NoteKind
from server.database.backends.redis_client import TIMEOUT
from server.database.models import EntityKind, Entry, Key
from server.database.steps import portions_of

_PATTERN = "[srlp][tuoh][unygd]*:*"
"""Of all keys, Celery's millions among them, the server sends back those that may have one of the four prefixes."""
_KINDS: Mapping[str, EntityKind] = {kind.value: kind for kind in EntityKind}
NAME_MAP = "name"
_NOTE_KINDS: Mapping[str, NoteKind] = {kind.value: kind for kind in FOLLOWED}
SCAN_COUNT = 2000
_NAMES_PER_NOTICE = 1000
FIRST_CURSOR = "0"


def read_notices(notification: PushNotification) -> Iterator[Notice]:
    """`["invalidate", [key, …]]`; None in place of the keys says that the database was flushed.

    A script that changes every run is told of at once: each notice has a part of the keys.
    """
    names = notification[1] if notification[0] == "invalidate" else []
    if names is None:
        yield Reload()
    else:
        for some in portions_of(names, _NAMES_PER_NOTICE):
            yield _notice_of(some)


def _notice_of(names: Sequence[str]) -> Notice:
    keys = [key for name in names if (key := _read_key(name)) is not None]
    notes = [note for name in names if (note := read_note_key(name)) is not None]
    return Changed(
        keys=frozenset(key for key in keys if key.id != NAME_MAP),
        name_maps=frozenset(key.kind for key in keys if key.id == NAME_MAP),
        notes=frozenset(notes),
    )


def _read_key(name: str) -> Key | None:
    prefix, _, id_ = name.partition(":")
    return Key(_KINDS[prefix], id_) if prefix in _KINDS else None


def read_note_key(name: str) -> NoteKey | None:
    prefix, _, rest = name.partition(":")
    kind, _, id_ = rest.partition(":")
    return NoteKey(_NOTE_KINDS[kind], id_) if prefix == PREFIX and kind in _NOTE_KINDS else None


async def ask(
    connection: AbstractConnection, keys: Sequence[Key], cursor: str | None = None, first: Sequence[str] = ()
) -> None:
    """For what stands under some keys, and then for the page of keys at the cursor, if there is one.

    `first`: a command to send before them.
    """
    requests = [pack_command(tuple(first))] if first else []  # type: ignore[arg-type]  # hiredis takes any tuple
    requests += [pack_command((b"HGETALL", _encode(str(key)))) for key in keys]  # type: ignore[arg-type]  # as above
    if cursor is not None:
        requests.append(pack_command(("SCAN", cursor, "MATCH", _PATTERN, "COUNT", SCAN_COUNT)))  # type: ignore[arg-type]  # as above
    if requests:
        async with asyncio.timeout(TIMEOUT):
            await connection.send_packed_command(b"".join(requests))


async def read_page(connection: AbstractConnection) -> tuple[str | None, Sequence[Key]]:
    """The next cursor, None after the last page, and the keys of this page."""
    async with asyncio.timeout(TIMEOUT):
        cursor, names = await connection.read_response(timeout=math.inf)
    keys = [key for name in names if (key := _read_key(name)) is not None and key.id != NAME_MAP]
    return None if cursor == FIRST_CURSOR else cursor, keys


async def read_replies(connection: AbstractConnection, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
    """Of each key: its fields and values by turns, or the server's error about it."""
    async with asyncio.timeout(TIMEOUT):
        return [(key, await read_reply(connection)) for key in keys]


async def read_reply(connection: AbstractConnection) -> Any:
    """What the server answers, also if it is an error."""
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error


def read_entry(key: Key, reply: Any) -> Entry:
    match reply:
        case ResponseError() if is_of_another_type(reply):
            return not_a_record(key, "it is no hash")
        case RedisError():
            raise reply
        case []:
            return Entry(key, None)
        case _:
            return decode(key.kind, key.id, pairs(reply))


def length(item: tuple[Key, Any]) -> int:
    _, reply = item
    return sum(map(len, reply)) if isinstance(reply, list) else 0


def is_of_another_type(error: RedisError) -> bool:
    return str(error).startswith("WRONGTYPE")


def pairs(reply: Sequence[str]) -> dict[str, str]:
    items = iter(reply)
    return dict(zip(items, items, strict=True))


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]
