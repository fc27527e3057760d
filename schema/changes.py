"""The events of subscriptions: changes of entities, changes of runs, ticks of live queries."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

import strawberry

from schema.enums import EntityKind, describe
from schema.node import Node
from schema.run import Run
from schema.task import Task
from server.database.change_log import ChangeKind
from server.database.entities import Entity, RunEntity
from server.database.run_tasks import RunTask
from server.database.workspaces import LogTail

describe(
    ChangeKind,
    "What happened to an entity since the subscriber's last event of it.",
    {
        ChangeKind.SNAPSHOT_BEGIN: "The snapshot begins: what the client knows from before may be gone. Of no entity.",
        ChangeKind.SNAPSHOT: "It existed when the subscription began.",
        ChangeKind.SNAPSHOT_END: "The snapshot is complete: what was not in it does not exist. Of no entity.",
        ChangeKind.CREATED: "It is new, or now matches the filter and did not before.",
        ChangeKind.UPDATED: "What is stored of it, or seen of it, changed, once or several times.",
        ChangeKind.LEFT: "It still exists, but no longer matches the filter of `runChanges` or `taskChanges`.",
        ChangeKind.DELETED: "It is gone.",
    },
)


@dataclass(frozen=True, slots=True)
class LiveTick:
    """The event of a live query: its result may have changed, and is computed again."""

    identity: Hashable
    """The state of the database that the result is computed from."""


_KIND = "What happened to it."
NO_ID = strawberry.ID("")
"""The id in an event that belongs to no entity: the begin or the end of a snapshot."""
_ID = "Its id; empty for SNAPSHOT_BEGIN and SNAPSHOT_END."
_REVISION = "The revision at which it was read; see `Database.revision`."


@strawberry.type(description="The changes of an entity since the subscriber's last event of it, as one.")
class Change:
    kind: ChangeKind = strawberry.field(description=_KIND)
    entity_kind: EntityKind = strawberry.field(
        description="Which kind of entity it is; for SNAPSHOT_BEGIN and SNAPSHOT_END the first of `kinds`."
    )
    entity_id: strawberry.ID = strawberry.field(description=_ID)
    node: Entity | None = strawberry.field(
        graphql_type=Node | None, description="The entity as it is now; null once deleted, and without an entity."
    )
    revision: int = strawberry.field(description=_REVISION)
    state: strawberry.Private[Hashable] = None

    @property
    def identity(self) -> Hashable:
        return self.kind, self.entity_id, self.state


@strawberry.type(description="The changes of a run since the subscriber's last event of it, as one.")
class RunChange:
    kind: ChangeKind = strawberry.field(description=_KIND)
    run_id: strawberry.ID = strawberry.field(description=_ID)
    run: RunEntity | None = strawberry.field(
        graphql_type=Run | None,
        description="The run as it is now, also for LEFT; null once deleted, and without a run.",
    )
    revision: int = strawberry.field(description=_REVISION)
    state: strawberry.Private[Hashable] = None

    @property
    def identity(self) -> Hashable:
        return self.kind, self.run_id, self.state


@strawberry.type(description="The changes of a task since the subscriber's last event of it, as one.")
class TaskChange:
    kind: ChangeKind = strawberry.field(description=_KIND)
    task_id: strawberry.ID = strawberry.field(
        description=f"{_ID} The last event, a DELETED of the run as a whole, has the id of the run."
    )
    task: RunTask | None = strawberry.field(
        graphql_type=Task | None,
        description="The task as it is now, also for LEFT; null once it is gone, and without a task.",
    )
    revision: int = strawberry.field(description=_REVISION)
    state: strawberry.Private[Hashable] = None

    @property
    def identity(self) -> Hashable:
        return self.kind, self.task_id, self.state


class LogChange:
    """What was added to a log. Each subscriber has its own: no two have the same response."""

    def __init__(self, tail: LogTail) -> None:
        self.text = tail.text
        self.size = tail.size
        self.start = tail.start
        self.end = tail.end
        self.is_whole = tail.is_whole
        self.modified_at = tail.modified_at
        self.identity: Hashable = object()


SubscriptionEvent: TypeAlias = Change | RunChange | TaskChange | LogChange | LiveTick
"""The events of subscriptions. Events of one `identity` have the same response for all subscribers."""
