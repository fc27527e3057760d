"""How many messages wait in queues on RabbitMQ, and how many consumers they have, by passive declarations.

Needs the extra `merlin-graphql[amqp]`: py-amqp, the library of Celery itself, which is called in a thread. Those for
asyncio (aio-pika, aiormq) refuse the names of Merlin's queues, for the brackets of their tag. Only this module imports
it, and only when such a broker is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from server.database.errors import BackendUnavailableError
from server.database.observations import QueueLength
from server.database.steps import portions_of
from server.work.broker import Broker
from server.work.queue_lengths import AskQueues, Lengths

_TIMEOUT = 5.0
"""Seconds to connect, and for an answer."""
_MAX_BYTES = 255
"""Of a queue's name in AMQP."""
_QUEUES_TOGETHER = 50
"""Queues that a thread asks for before it returns, so that it does not outlive its caller for long."""
_UNKNOWN, _MISSING = QueueLength(), QueueLength(0, 0)
"""A queue that does not exist yet is empty, as `merlin queue-info` has it."""


@contextlib.asynccontextmanager
async def amqp_queues(broker: Broker) -> AsyncIterator[AskQueues]:
    """Raises `BackendUnavailableError` in the block if the broker can't be asked."""
    connection = _connection(broker)
    with _translated(broker):
        try:
            await asyncio.to_thread(connection.connect)

            async def ask(names: Sequence[str]) -> Lengths:
                lengths: dict[str, QueueLength] = {}
                for some in portions_of(names, _QUEUES_TOGETHER):
                    lengths |= await asyncio.to_thread(_ask, connection, some)
                return lengths

            yield ask
        finally:
            connection.collect()  # without a farewell, which might have to wait; a thread that still asks fails


def _ask(connection: Any, names: Sequence[str]) -> Lengths:
    from amqp.exceptions import ChannelError, NotFound  # noqa: PLC0415 - an extra

    lengths: dict[str, QueueLength] = {}
    channel = connection.channel()
    for name in names:
        if len(name.encode(errors="replace")) > _MAX_BYTES:
            continue
        try:
            _, waiting, consumers = channel.queue_declare(name, passive=True)
            lengths[name] = QueueLength(waiting, consumers)
        except ChannelError as error:
            lengths[name] = _MISSING if isinstance(error, NotFound) else _UNKNOWN
            channel = connection.channel()  # RabbitMQ closes a channel with each error
    channel.close()
    return lengths


def _connection(broker: Broker) -> Any:
    import amqp  # noqa: PLC0415 - an extra

    parts = urlsplit(broker.url)
    host, is_tls = parts.hostname or "", parts.scheme == "amqps"
    return amqp.Connection(
        host=f"{f'[{host}]' if ':' in host else host}:{parts.port or _PORTS[parts.scheme]}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest") if broker.password is None else broker.password,
        login_method="PLAIN",
        virtual_host=unquote(parts.path[1:]) or "/",
        ssl=_tls_of(broker, host) if is_tls else False,
        connect_timeout=_TIMEOUT,
        read_timeout=_TIMEOUT,
        write_timeout=_TIMEOUT,
    )


_PORTS = {"amqp": 5672, "amqps": 5671}


def _tls_of(broker: Broker, hostname: str) -> Mapping[str, Any]:
    tls = broker.tls
    is_verified = tls.cert_reqs != "none"
    return {
        "ca_certs": tls.ca_certs,
        "certfile": tls.certfile,
        "keyfile": tls.keyfile,
        "cert_reqs": ssl.CERT_REQUIRED if is_verified else ssl.CERT_NONE,
        "server_hostname": hostname if is_verified else None,
    }


@contextlib.contextmanager
def _translated(broker: Broker) -> Iterator[None]:
    """Turns what the library raises into an error that names the broker, and no password."""
    from amqp.exceptions import AMQPError  # noqa: PLC0415 - an extra

    try:
        yield
    except (AMQPError, OSError) as error:
        reason = getattr(error, "reply_text", None) or getattr(error, "strerror", None) or type(error).__name__
        raise BackendUnavailableError(f"Can't ask the broker {broker.connection}: {reason}.") from error
