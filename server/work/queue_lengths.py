"""The question to a broker how long queues are: what the modules for Redis and for RabbitMQ answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from server.database.observations import QueueLength

Lengths: TypeAlias = Mapping[str, QueueLength]
AskQueues: TypeAlias = Callable[[Sequence[str]], Awaitable[Lengths]]
"""Asks for the queues of these names. Raises `BackendError` if the broker can't be asked."""
