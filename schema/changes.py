"""The events of subscriptions: changes of entities, changes of runs, ticks of live queries."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

import strawberry

from schema.enums import EntityKind, describe
from schema.node import Node
from schema.run import Run
from server.database.change_log import ChangeKind
from server.database.entities import Entity, RunEntity

describe(
    ChangeKind,
    "What happened to an entity since the subscriber's last event of it.",
    {
        ChangeKind.SNAPSHOT: "It existed when the subscription began.",
        ChangeKind.CREATED: "It is new, or now matches the filter and did not before.",
        ChangeKind.UPDATED: "What is stored of it changed, or what this server sees of it, once or several times.",
        ChangeKind.LEFT: "It still exists, but no longer matches the filter. Only `runChanges` has a filter.",
        ChangeKind.DELETED: "It is gone.",
    },
)


@dataclass(frozen=True, slots=True)
class LiveTick:
    """The event of a live query: its result may have changed, and is computed again."""

    identity: Hashable
    """The state of the database that the result is computed from."""


_KIND = "What happened to it."
_REVISION = "The revision at which it was read; see `Database.revision`."


@strawberry.type(description="The changes of an entity since the subscriber's last event of it, as one.")
class Change:
    kind: ChangeKind = strawberry.field(description=_KIND)
    entity_kind: EntityKind = strawberry.field(description="Which kind of entity it is.")
    id: strawberry.ID = strawberry.field(description="Its id.")
    node: Entity | None = strawberry.field(
        graphql_type=Node | None, description="The entity as it is now; null once deleted."
    )
    revision: int = strawberry.field(description=_REVISION)
    state: strawberry.Private[Hashable] = None

    @property
    def identity(self) -> Hashable:
        return self.kind, self.id, self.state


@strawberry.type(description="The changes of a run since the subscriber's last event of it, as one.")
class RunChange:
    kind: ChangeKind = strawberry.field(description=_KIND)
    id: strawberry.ID = strawberry.field(description="Its id.")
    run: RunEntity | None = strawberry.field(
        graphql_type=Run | None, description="The run as it is now, also for LEFT; null once deleted."
    )
    revision: int = strawberry.field(description=_REVISION)
    state: strawberry.Private[Hashable] = None

    @property
    def identity(self) -> Hashable:
        return self.kind, self.id, self.state


SubscriptionEvent: TypeAlias = Change | RunChange | LiveTick
"""The events of subscriptions. Events of one `identity` have the same response for all subscribers."""
