"""The context that every resolver receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import strawberry

from schema.roles import Role
from server.database.merlin_database import MerlinDatabase


@dataclass(frozen=True, slots=True)
class Context:
    database: MerlinDatabase
    server_version: str
    role: Role | None
    """The highest that the viewer has."""
    who: str | None = field(default=None, compare=False)
    """The viewer's name, for the audit log: no answer depends on it."""
    reveals: bool = True
    """Whether clients are told where the database is."""


Info: TypeAlias = strawberry.Info[Context, None]
