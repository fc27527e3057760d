"""The type Viewer: what the client that asks may do, and what it may still use."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.allowance import Allowance
from schema.context import Info
from schema.roles import Role


@strawberry.type(
    description=(
        "The points that the operations of a client may cost, at one server process. They come back with time, evenly: "
        "in a minute as many as `limit`."
    )
)
class Budget:
    limit: int = strawberry.field(description="The most points that there can be.")
    remaining: int = strawberry.field(description="The points that are left; this operation has been paid for already.")
    reset_at: datetime = strawberry.field(
        description="When there will be `limit` points again, if the client asks for nothing until then."
    )


@strawberry.type(description="The client that sends the operation, as far as this server knows it.")
class Viewer:
    roles: list[Role] = strawberry.field(description="The roles of the viewer, the lowest first.")

    @strawberry.field(description="What the viewer may still use at this server process.", graphql_type=Budget)
    @staticmethod
    def budget(info: Info) -> Allowance:
        return info.context.allowance
