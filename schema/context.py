"""What every resolver is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import strawberry

from server.database.merlin_database import MerlinDatabase


@dataclass(frozen=True, slots=True)
class Context:
    database: MerlinDatabase
    server_version: str


Info: TypeAlias = strawberry.Info[Context, None]
