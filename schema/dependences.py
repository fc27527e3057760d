"""On what live queries depend: noted while one is executed, so that only what can touch its answer executes it again.

The compiled function itself notes each entity that it shows. A field that reads only the object that it is of, or what
that belongs to, has nothing to add. A field that is not in `NOTES` may depend on anything, and so does the answer then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from schema.compiler.codegen import Notes
from schema.connections import DEFAULT_PAGE, Page
from schema.context import Context
from schema.cursors import read_cursor
from schema.filters import Filter
from schema.lookups import By, LogicalWorkerBy
from schema.orders import Order, rank_of
from schema.scalars import id_of
from schema.shown_lists import OWNERS, WHOLE, MovedMembers, ShownList, Window, needs_of
from server.database.entities import Entity, StudyEntity
from server.database.models import EntityKind, LogicalWorkerModel, PhysicalWorkerModel, RunModel
from server.database.watches import ANY, Dependence

_OF_THE_WHOLE = frozenset({"totalCount", "pageInfo"})
"""Fields of a connection that depend on more than the page."""
_OF_THE_OBJECT: Mapping[str, str] = MappingProxyType(
    {
        "Subscription": "live",
        "Study": "id name annotations additionalData",
        "Run": (
            "id workspace status isFinished queues study studyId workers workerIds parent steps parameters samples "
            "additionalData annotations launchedAt startedAt finishedAt duration statusHistory"
        ),
        "LogicalWorker": "id name queues additionalData",
        "PhysicalWorker": (
            "id name status host pid launchCommand args heartbeatAt startedAt restartCount logicalWorker "
            "logicalWorkerId additionalData"
        ),
        **{
            f"{type_}{part}": fields
            for type_ in ("Study", "Run", "LogicalWorker", "PhysicalWorker")
            for part, fields in (("Connection", "nodes edges pageInfo totalCount"), ("Edge", "node cursor"))
        },
        "PageInfo": "hasNextPage hasPreviousPage startCursor endCursor",
        "StatusChange": "status at isLate",
        "RunStatusCount": "status count",
        "WorkerStatusCount": "status count",
    }
)
"""Fields that depend on nothing but the object that they are of, and on what an entity itself belongs to."""


def _dependence(context: Context) -> Dependence:
    assert context.dependence is not None
    return context.dependence


# --- entities that are looked up


def _id(context: Context, id_: str) -> None:
    _dependence(context).own.update((id_, id_of(id_)))


def _node(context: Context, _root: object, _value: object, _asked: object, id: str) -> None:  # noqa: A002 - the argument
    _id(context, id)


def _nodes(context: Context, _root: object, _value: object, _asked: object, ids: list[str]) -> None:
    for id_ in ids:
        _id(context, id_)


def _one(kind: EntityKind, name_argument: str) -> Callable[..., None]:
    """An entity by its id or its name."""

    def note(context: Context, _root: object, _value: object, _asked: object, **given: str | None) -> None:
        if (id_ := given.get("id")) is not None:
            _id(context, id_)
        if (name := given.get(name_argument)) is not None:
            _dependence(context).names.add((kind, name))

    return note


def _one_by(kind: EntityKind) -> Callable[..., None]:
    def note(context: Context, _root: object, _value: object, _asked: object, by: By) -> None:
        id_, name = by.id_and_name
        if id_ is None:
            _dependence(context).names.add((kind, name or ""))
        else:
            _id(context, id_)

    return note


def _logical_worker(
    context: Context,
    _root: object,
    _value: object,
    _asked: object,
    id: str | None = None,  # noqa: A002 - the argument
    name: str | None = None,
    queues: list[str] | None = None,
) -> None:
    if id is not None:
        _id(context, id)
    elif name is not None and queues is not None:
        _id(context, LogicalWorkerModel.generate_id(name, set(queues)))


def _logical_worker_by(context: Context, _root: object, _value: object, _asked: object, by: LogicalWorkerBy) -> None:
    if by.name_and_queues:
        _id(context, LogicalWorkerModel.generate_id(by.name_and_queues.name, set(by.name_and_queues.queues)))
    else:
        _id(context, by.id or "")


# --- lists


def _list(
    context: Context,
    kind: EntityKind,
    owner: Entity | None,
    given: Filter | None,
    order: Order | None,
    rank: Callable[[Any], Any] | None,
    window: Window,
    own: tuple[str, ...] = (),
) -> None:
    """`own`: the fields that it shows of all entities. `owner`: of the entities; None: these are all of the kind."""
    dependence = _dependence(context)
    needs = needs_of(given, order, own)
    if needs is None:
        dependence.is_known = False
        return
    key = "" if owner is None else owner.id, kind, id(given), rank is None, window, own
    if key in dependence.noted:  # as where each run of a page shows the runs of its study
        return
    dependence.noted.add(key)
    entity_context = context.database.entity_context
    test = ShownList(entity_context, given, needs, rank, window, is_of_owner=owner is not None)
    if owner is None:
        dependence.of_kinds.append((kind, needs.fields, test))
    else:
        dependence.of_owners.append((owner.id, kind, needs.fields | OWNERS, test))
    if needs.owners:
        dependence.linked_kinds.add(EntityKind.RUN)
        dependence.of_kinds += [(kind, ANY, _always) for kind in needs.owners]
    if needs.runs:
        dependence.linked_kinds.add(EntityKind.RUN)
        dependence.of_kinds.append((EntityKind.RUN, needs.runs, _always))


def _always(*_: object) -> bool:
    return True


def _page(kind: EntityKind, *, is_of_owner: bool = False) -> Callable[..., None]:
    """`is_of_owner`: whether the entities are members of the object that has the field."""

    def note(
        context: Context,
        parent: Any,
        page: Page,
        asked: Collection[str],
        filter: Filter | None = None,  # noqa: A002 - the argument
        order_by: Order | None = None,
        **places: Any,
    ) -> None:
        rank = rank_of(order_by, context.database.entity_context)
        window = WHOLE if rank is not None or not _OF_THE_WHOLE.isdisjoint(asked) else _window(page, **places)
        _list(context, kind, parent if is_of_owner else None, filter, order_by, rank, window)

    return note


def _window(
    page: Page, first: int | None = None, after: str | None = None, last: int | None = None, before: str | None = None
) -> Window:
    """What is beyond a full page does not touch it."""
    start = None if after is None else read_cursor(after, page.order, "after")
    end = None if before is None else read_cursor(before, page.order, "before")
    shown = page.shown
    if last is not None:
        return Window(page.position(0), end) if shown == last else Window(start, end)
    most = DEFAULT_PAGE if first is None else first
    return Window(start, page.position(shown - 1)) if shown == most else Window(start, end)


def _run_counts(
    context: Context,
    parent: Any,
    _value: object,
    _asked: object,
    filter: Filter | None = None,  # noqa: A002 - the argument
) -> None:
    study = parent if isinstance(parent, StudyEntity) else None
    _list(context, EntityKind.RUN, study, filter, None, _status_of_run, WHOLE, ("run_status",))


def _worker_counts(
    context: Context,
    _root: object,
    _value: object,
    _asked: object,
    filter: Filter | None = None,  # noqa: A002 - the argument
) -> None:
    _list(context, EntityKind.PHYSICAL_WORKER, None, filter, None, _status_of_worker, WHOLE, ("worker_status",))


def _status_of_run(run: RunModel) -> object:
    return run.run_status


def _status_of_worker(worker: PhysicalWorkerModel) -> object:
    return worker.worker_status


def _workers_of_study(context: Context, study: StudyEntity, _value: object, _asked: object) -> None:
    _dependence(context).of_owners.append((study.id, EntityKind.RUN, OWNERS, MovedMembers()))


def _latest_run(context: Context, study: StudyEntity, _value: object, _asked: object) -> None:
    runs = study.runs
    window = Window(None, runs.position(0)) if len(runs) else WHOLE
    _list(context, EntityKind.RUN, study, None, None, None, window)


def _child(context: Context, parent: Entity, _value: object, _asked: object) -> None:
    _dependence(context).members.add(parent.id)


NOTES: Notes = MappingProxyType(
    {
        **{f"{type_}.{name}": None for type_, names in _OF_THE_OBJECT.items() for name in names.split()},
        "Query.node": _node,
        "Query.nodes": _nodes,
        "Query.study": _one(EntityKind.STUDY, "name"),
        "Query.studyBy": _one_by(EntityKind.STUDY),
        "Query.studies": _page(EntityKind.STUDY),
        "Query.run": _one(EntityKind.RUN, "workspace"),
        "Query.runBy": _one_by(EntityKind.RUN),
        "Query.runs": _page(EntityKind.RUN),
        "Query.logicalWorker": _logical_worker,
        "Query.logicalWorkerBy": _logical_worker_by,
        "Query.logicalWorkers": _page(EntityKind.LOGICAL_WORKER),
        "Query.physicalWorker": _one(EntityKind.PHYSICAL_WORKER, "name"),
        "Query.physicalWorkerBy": _one_by(EntityKind.PHYSICAL_WORKER),
        "Query.physicalWorkers": _page(EntityKind.PHYSICAL_WORKER),
        "Query.runCounts": _run_counts,
        "Query.physicalWorkerCounts": _worker_counts,
        "Study.runs": _page(EntityKind.RUN, is_of_owner=True),
        "Study.runCounts": _run_counts,
        "Study.workers": _workers_of_study,
        "Study.latestRun": _latest_run,
        "Run.child": _child,
        "LogicalWorker.runs": _page(EntityKind.RUN, is_of_owner=True),
        "LogicalWorker.physicalWorkers": _page(EntityKind.PHYSICAL_WORKER, is_of_owner=True),
    }
)
