"""Requests to Celery's workers to send events of their tasks, as `celery control enable_events` sends them.

This is all that the server ever sends to workers, and only with `--enable-task-events`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from base64 import b64encode
from contextlib import suppress
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from server.database.backends.redis_client import RedisClients

LOG = logging.getLogger(__name__)

_EVERY = 60.0
"""Seconds between two requests, for workers whose start was not heard."""
_START = 3.0
"""Seconds from the event of a worker's start until it surely listens to requests: it takes about one."""
_EXCHANGE = "celery.pidbox"
_PICKLE = 4
"""The protocol of pickle that kombu writes."""


class TaskEventRequests:
    def __init__(self, clients: RedisClients, *, key_prefix: str = "") -> None:
        """`key_prefix`: kombu's `global_keyprefix`."""
        self._clients = clients
        self._client = clients.make()
        self._channel = f"{key_prefix}/{clients.database}.{_EXCHANGE}"
        self._wanted = asyncio.Event()

    def ask_soon(self) -> None:
        """To be called when a worker starts."""
        self._wanted.set()

    async def run(self) -> None:
        try:
            while True:
                await self._ask()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY):
                        await self._wanted.wait()
                if self._wanted.is_set():
                    self._wanted.clear()  # who starts from now on gets another request
                    await asyncio.sleep(_START)
        finally:
            await self._client.aclose()

    async def _ask(self) -> None:
        try:
            await self._client.publish(self._channel, _request())
        except (RedisError, OSError) as error:
            LOG.debug("Workers were not asked for events of tasks: %s", self._clients.translate(error))


def _request() -> str:
    """For all workers, none of which answers. In kombu's envelope; Merlin's workers take nothing but pickle."""
    command: dict[str, Any] = {
        "method": "enable_events",
        "arguments": {},
        "destination": None,
        "pattern": None,
        "matcher": None,
    }
    return json.dumps(
        {
            "body": b64encode(pickle.dumps(command, protocol=_PICKLE)).decode(),
            "content-encoding": "binary",
            "content-type": "application/x-python-serialize",
            "headers": {"clock": 0, "expires": 0},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": _EXCHANGE, "routing_key": ""},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )
