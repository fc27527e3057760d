"""The root type Subscription: each field follows the change log at its subscriber's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Annotated

import strawberry

from schema.allowance import Toll
from schema.changes import NO_ID, Change, LiveTick, LogChange, RunChange, TaskChange
from schema.context import Info
from schema.enums import EntityKind, LogStream
from schema.errors import BadInput
from schema.filters import RunFilter, RunFilterArgument, TaskFilterArgument
from schema.predicates import matching, predicate_of
from schema.query import Query
from schema.task import LogTail
from schema.task_changes import log_changes, task_changes
from server.database.change_log import ChangeKind, Interest
from server.database.merlin_database import MerlinDatabase
from server.database.models import Key
from server.database.notifier import Notifier
from server.database.observations import INTEREST_SECONDS
from server.database.watches import Watch

MAX_IDS = 500
MAX_THROTTLE = 3_600_000

Snapshot = Annotated[
    bool,
    strawberry.argument(
        description="Whether to send the current state first, between a SNAPSHOT_BEGIN and a SNAPSHOT_END."
    ),
]


@strawberry.type(
    description=(
        "Changes of the database, whoever made them. A slow subscriber gets one event for several changes of an "
        "entity, with its latest state."
    )
)
class Subscription:
    @strawberry.subscription(
        description="Every change, coalesced per entity. With `snapshot`, the entities that exist now come first.",
        graphql_type=AsyncGenerator[Change, None],
    )
    @staticmethod
    def changes(
        info: Info,
        kinds: Annotated[
            list[EntityKind] | None,
            strawberry.argument(description="Only changes of these kinds. Without it: of all kinds."),
        ] = None,
        ids: Annotated[
            list[strawberry.ID] | None,
            strawberry.argument(
                description="Only changes of these entities, at most 500. Without it: of all entities."
            ),
        ] = None,
        snapshot: Snapshot = False,
    ) -> AsyncGenerator[Change, None]:
        if ids is not None and len(ids) > MAX_IDS:
            raise BadInput(f"ids: ask for at most {MAX_IDS} at a time, not {len(ids)}.", "ids")
        database = info.context.database
        kind = next(iter(kinds or EntityKind))
        return _changes(database, _interest_in(database, kinds, ids), kind, info.context.toll, snapshot=snapshot)

    @strawberry.subscription(
        description=(
            "Every change of runs, coalesced. A run that begins to match arrives as CREATED. One that ceases to match "
            "arrives once: as LEFT if it still exists, as DELETED if it is gone. "
            "With `snapshot`, the runs that match now come first, in their default order."
        ),
        graphql_type=AsyncGenerator[RunChange, None],
    )
    @staticmethod
    def run_changes(
        info: Info, filter: RunFilterArgument = None, snapshot: Snapshot = False
    ) -> AsyncGenerator[RunChange, None]:
        database = info.context.database
        return _run_changes(database, _interest_in_runs(database, filter), info.context.toll, snapshot=snapshot)

    @strawberry.subscription(
        description=(
            "Any query, live: the selection is sent at once and again whenever its result changes, at most every "
            "`throttle` milliseconds, and less often if little of the client's budget remains. Fields that depend on "
            "the clock, such as `heartbeatAge`, are updated only when the database changes."
        ),
        graphql_type=AsyncGenerator[Query, None],
    )
    @staticmethod
    def live(
        info: Info,
        throttle: Annotated[
            int,
            strawberry.argument(description="The minimum number of milliseconds between two results, 0 to 3600000."),
        ] = 250,
    ) -> AsyncGenerator[LiveTick, None]:
        if not 0 <= throttle <= MAX_THROTTLE:
            raise BadInput(f"throttle: pass 0 to {MAX_THROTTLE} milliseconds, not {throttle}.", "throttle")
        database = info.context.database
        notifier = database.observations.notifier if info.context.observes else database.notifier
        look_again = INTEREST_SECONDS / 2 if info.context.observes else None
        watch = Watch() if info.context.watch is None else info.context.watch
        return _live(database, notifier, watch, throttle / 1000, info.context.toll, look_again)

    @strawberry.subscription(
        description=(
            "Every change of the tasks of a run, coalesced per task, while this server can read the workspace. "
            "A task that begins to match arrives as CREATED, one that ceases to match as LEFT. With `snapshot`, the "
            "tasks that match now come first, in the order of the specification. When the run is gone, a last event "
            "says DELETED of it, and the subscription ends."
        ),
        graphql_type=AsyncGenerator[TaskChange, None],
    )
    @staticmethod
    def task_changes(
        info: Info,
        run_id: Annotated[strawberry.ID, strawberry.argument(description="The id of the run.")],
        filter: TaskFilterArgument = None,
        snapshot: Snapshot = False,
    ) -> AsyncGenerator[TaskChange, None]:
        return task_changes(info.context.database, run_id, filter, info.context.toll, snapshot=snapshot)

    @strawberry.subscription(
        description=(
            "A text file of a task as it grows: first its end, then what is added, as `tail -F` tells it. "
            "It begins when there is such a file. It tells nothing if this server can't read the workspace."
        ),
        graphql_type=AsyncGenerator[LogTail, None],
    )
    @staticmethod
    def log(
        info: Info,
        run_id: Annotated[strawberry.ID, strawberry.argument(description="The id of the run.")],
        task_id: Annotated[strawberry.ID, strawberry.argument(description="The id of the task: see `Task.id`.")],
        stream: Annotated[LogStream, strawberry.argument(description="Which file.")] = LogStream.STDOUT,
    ) -> AsyncGenerator[LogChange, None]:
        return log_changes(info.context.database, run_id, task_id, stream, info.context.toll)


def _interest_in(database: MerlinDatabase, kinds: list[EntityKind] | None, ids: list[strawberry.ID] | None) -> Interest:
    wanted_kinds = frozenset(EntityKind if kinds is None else kinds)
    wanted_ids = None if ids is None else frozenset(ids)

    def wants(key: Key) -> bool:
        return key.kind in wanted_kinds and (wanted_ids is None or key.id.lower() in wanted_ids)

    def current_keys() -> Iterator[Key]:
        tables = database.read_model.tables
        orders = [(kind, list(table.order)) for kind, table in tables.items() if kind in wanted_kinds]
        return (
            Key(kind, id_)
            for kind, order in orders
            for _, id_ in order
            if wanted_ids is None or id_.lower() in wanted_ids
        )

    return Interest(wants, current_keys)


def _interest_in_runs(database: MerlinDatabase, given: RunFilter | None) -> Interest:
    def is_run(key: Key) -> bool:
        return key.kind is EntityKind.RUN

    def current_keys() -> Iterator[Key]:
        found = list(matching(database.runs.all(), given, database.entity_context).positions)
        return (Key(EntityKind.RUN, id_) for _, id_ in found)

    predicate = predicate_of(given, database.entity_context)
    if predicate is None:
        return Interest(is_run, current_keys)
    records, matches = database.read_model.runs.records, predicate.matches
    return Interest(is_run, current_keys, lambda key: matches(records[key.id]), predicate.follows_links)


async def _changes(
    database: MerlinDatabase, interest: Interest, kind_of_marks: EntityKind, toll: Toll, *, snapshot: bool
) -> AsyncGenerator[Change, None]:
    """`kind_of_marks`: what the begin and the end of the snapshot say, since an event has a kind of entity."""
    async with aclosing(database.changes.follow(interest, snapshot=snapshot, gate=toll)) as events:
        async for kind, key in events:
            yield Change(
                kind=kind,
                entity_kind=kind_of_marks if key is None else key.kind,
                entity_id=NO_ID if key is None else strawberry.ID(key.id),
                node=None if key is None else database.entity(key),
                revision=database.revision,
                state=database.state,
            )


async def _run_changes(
    database: MerlinDatabase, interest: Interest, toll: Toll, *, snapshot: bool
) -> AsyncGenerator[RunChange, None]:
    async with aclosing(database.changes.follow(interest, snapshot=snapshot, gate=toll)) as events:
        async for kind, key in events:
            run = None if key is None or kind is ChangeKind.DELETED else database.runs.by_id(key.id)
            id_ = NO_ID if key is None else strawberry.ID(key.id)
            state = database.state
            yield RunChange(kind=kind, run_id=id_, run=run, revision=state.revision, state=state)


async def _live(
    database: MerlinDatabase,
    notifier: Notifier,
    watch: Watch,
    throttle: float,
    toll: Toll,
    look_again: float | None,
) -> AsyncGenerator[LiveTick, None]:
    """`watch`: of what touches it, where that is known; else any notification does.

    `look_again`: seconds after which it is executed without a change, so that what it shows stays observed.
    """
    while True:
        await toll.opened()
        changed, touched = notifier.next, watch.next  # taken before the result is computed, so that none is missed
        yield LiveTick(database.state)
        await asyncio.sleep(max(throttle, toll.pause))
        with suppress(TimeoutError):
            await asyncio.wait_for((touched if watch.is_known else changed).wait(), look_again)
