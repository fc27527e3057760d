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
    "What became of an entity since the subscriber last heard of it.",
    {
        ChangeKind.SNAPSHOT: "It stood when the subscription began.",
        ChangeKind.CREATED: "It is new, or matches now and did not before.",
        ChangeKind.UPDATED: "What is stored of it changed, once or several times.",
        ChangeKind.LEFT: "It still exists, and does not match the filter any more. Only `runChanges` has one.",
        ChangeKind.DELETED: "It is gone.",
    },
)


@dataclass(frozen=True, slots=True)
class LiveTick:
    """The root of a live query, each time that its result is to be looked at."""

    identity: Hashable
    """What state of the database is looked at."""


_KIND = "What became of it."
_REVISION = "The revision that it was read at; see `Database.revision`."


@strawberry.type(description="A change of an entity: all of them since the subscriber last heard of it, as one.")
class Change:
    kind: ChangeKind = strawberry.field(description=_KIND)
    entity_kind: EntityKind = strawberry.field(description="Which kind of entity it is.")
    id: strawberry.ID = strawberry.field(description="Its id.")
    node: Entity | None = strawberry.field(
        graphql_type=Node | None, description="The entity as it is now; null once deleted."
    )
    revision: int = strawberry.field(description=_REVISION)

    @property
    def identity(self) -> Hashable:
        return self.kind, self.id, self.revision


@strawberry.type(description="A change of a run: all of them since the subscriber last heard of it, as one.")
class RunChange:
    kind: ChangeKind = strawberry.field(description=_KIND)
    id: strawberry.ID = strawberry.field(description="Its id.")
    run: RunEntity | None = strawberry.field(
        graphql_type=Run | None, description="The run as it is now, also where it has left; null once deleted."
    )
    revision: int = strawberry.field(description=_REVISION)

    @property
    def identity(self) -> Hashable:
        return self.kind, self.id, self.revision


SubscriptionEvent: TypeAlias = Change | RunChange | LiveTick
"""The events of subscriptions. Those of one `identity` have one answer, whoever is told."""
