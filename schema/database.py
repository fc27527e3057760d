"""The type Database: which database is served, and how fresh its copy is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from schema.context import Info
from schema.enums import Source
from server.database.merlin_database import MerlinDatabase


@strawberry.type(description="The database that is served, and how fresh the responses are.")
class Database:
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, MerlinDatabase)

    kind: str = strawberry.field(description="`redis`, `sqlite` or `memory`.")

    @strawberry.field(description="The database's own name and version; only its kind if the server hides its schema.")
    @staticmethod
    def version(root: strawberry.Parent[MerlinDatabase], info: Info) -> str:
        return root.version if info.context.reveals else root.kind

    @strawberry.field(
        description="The address of the database, without a password; only its kind if the server hides its schema."
    )
    @staticmethod
    def connection(root: strawberry.Parent[MerlinDatabase], info: Info) -> str:
        return root.connection if info.context.reveals else root.kind

    @strawberry.field(description="The number of studies.")
    @staticmethod
    def studies(root: strawberry.Parent[MerlinDatabase]) -> int:
        return len(root.studies)

    @strawberry.field(description="The number of runs.")
    @staticmethod
    def runs(root: strawberry.Parent[MerlinDatabase]) -> int:
        return len(root.runs)

    @strawberry.field(description="The number of logical workers.")
    @staticmethod
    def logical_workers(root: strawberry.Parent[MerlinDatabase]) -> int:
        return len(root.logical_workers)

    @strawberry.field(description="The number of physical workers.")
    @staticmethod
    def physical_workers(root: strawberry.Parent[MerlinDatabase]) -> int:
        return len(root.physical_workers)

    revision: int = strawberry.field(
        description=(
            "Increases with every change. All servers of one database use the same count: a moment after the last "
            "change they have the same number, and a request with `X-Read-After` never sees a smaller one than that of "
            "the position. A server with `--read-only` counts what Merlin changes for itself. All of one response is "
            "read at one revision."
        )
    )
    stale_since: datetime | None = strawberry.field(
        description=(
            "null while changes arrive as they happen; "
            "while the database can't be reached, the time when it was last reached."
        )
    )

    @strawberry.field(
        description=(
            "The sources of observations that work now, in the order of the enum. What comes from another one is null "
            "or empty, or as it was when that worked last. Each server has its own."
        )
    )
    @staticmethod
    def sources(root: strawberry.Parent[MerlinDatabase]) -> list[Source]:
        return list(root.observations.sources)

    @strawberry.field(description="The version of this server.")
    @staticmethod
    def server_version(info: Info) -> str:
        return info.context.server_version
