"""The context that every resolver receives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import strawberry

from schema.allowance import FREE, UNLIMITED, Allowance, Toll
from schema.roles import Role
from server.database.idempotency import Claim
from server.database.merlin_database import MerlinDatabase


@dataclass(frozen=True, slots=True)
class Context:
    """The database, and what is known of the viewer: the client whose operation it is."""

    database: MerlinDatabase
    server_version: str
    role: Role | None
    """The highest role of the viewer; None without any."""
    who: str | None = field(default=None, compare=False)
    """The viewer's name, for the audit log; no response depends on it."""
    reveals: bool = True
    """Whether responses reveal the address of the database."""
    deadline: float | None = field(default=None, compare=False)
    """When a mutation is given up, in seconds of the event loop's clock."""
    done: list[Mapping[str, str]] | None = field(default=None, compare=False)
    """What the earlier fields of this mutation have changed: an error of a later one takes their payloads away."""
    claim: Claim | None = field(default=None, compare=False)
    """Under which a mutation with an idempotency key is executed."""
    allowance: Allowance = field(default=UNLIMITED, compare=False)
    """What the viewer may still use."""
    toll: Toll = field(default=FREE, compare=False)
    """What each execution of a subscription costs; only the source of its events has it."""


Info: TypeAlias = strawberry.Info[Context, None]
