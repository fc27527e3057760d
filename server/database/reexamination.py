"""What a change touches: the records, ids of lists and names that are to be examined again because of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from server.database.differences import middles
from server.database.examination import SIDES_OF
from server.database.integrity import RELATIONS, Side
from server.database.known_problems import Pair
from server.database.links import Links
from server.database.models import EntityKind, Key, Model, PhysicalWorkerModel, RunModel, name_of
from server.database.read_model import ReadModel
from server.database.slices import give_way


@dataclass(slots=True)
class Unexamined:
    """What is yet to be examined."""

    records: dict[Key, None] = field(default_factory=dict)
    items: dict[Pair, None] = field(default_factory=dict)
    names: dict[EntityKind, dict[str, None]] = field(default_factory=lambda: {kind: {} for kind in EntityKind})

    def __bool__(self) -> bool:
        return bool(self.records or self.items or any(self.names.values()))


def note_change(unexamined: Unexamined, copy: ReadModel, key: Key, before: Model | None, *, is_reread: bool) -> None:
    """Notes what a change of a record touches, from what it was to what it is.

    `is_reread`: whether it may be another matter than before which of its values can be read. To be done in slices.
    """
    after = copy.get(key)
    is_whole = is_reread or (before is None) is not (after is None)
    unexamined.records[key] = None
    names = [None if record is None else name_of(record) for record in (before, after)]
    if names[0] != names[1]:
        unexamined.names[key.kind].update((name, None) for name in names if name is not None)
    for side, other_side in SIDES_OF[key.kind]:
        old = () if before is None else side.ids(before)
        new = () if after is None else side.ids(after)
        near = {*old, *new} if is_whole else {*chain(*middles(old, new))}
        if near or is_whole or isinstance(after, PhysicalWorkerModel):  # whose status is a matter of its owner
            links = _links(copy, side, other_side)
            near.update(_saying(links, key.id, side, is_whole=is_whole))
        if isinstance(after, PhysicalWorkerModel):
            near.update(new)
        _note_near(unexamined, key, side, other_side, near)
    if is_whole and key.kind is EntityKind.RUN:
        _note_siblings(unexamined, copy, key.id, before, after)


def _saying(links: Links[Any, Any], id_: str, side: Side, *, is_whole: bool) -> Sequence[str]:
    """Those that name the record without being named by it, and perhaps more."""
    if not _is_owner(side):
        return links.one_sided_of(id_)
    return [member_id for _, member_id in links.members_of(id_)] if is_whole or side.field == "child" else ()


def _note_near(unexamined: Unexamined, key: Key, side: Side, other_side: Side, ids: Iterable[str]) -> None:
    for id_ in ids:
        unexamined.records[Key(other_side.kind, id_)] = None
        if side.is_list:
            unexamined.items[side.kind, side.field, key.id, id_] = None
        if other_side.is_list:
            unexamined.items[other_side.kind, other_side.field, id_, key.id] = None
        give_way()


def _note_siblings(
    unexamined: Unexamined, copy: ReadModel, id_: str, before: Model | None, after: Model | None
) -> None:
    """The runs whose parent has this one as its child: whether that exists decides what can be mended."""
    parents = {run.parent for run in (before, after) if isinstance(run, RunModel) and run.parent is not None}
    for parent_id in parents.union(copy.children.one_sided_of(id_)):
        for _, sibling_id in tuple(copy.children.members_of(parent_id)):
            unexamined.records[Key(EntityKind.RUN, sibling_id)] = None
            give_way()


def _links(copy: ReadModel, side: Side, other_side: Side) -> Links[Any, Any]:
    owner, _ = (side, other_side) if _is_owner(side) else (other_side, side)
    match owner.kind, owner.field:
        case EntityKind.STUDY, _:
            return copy.study_runs
        case EntityKind.LOGICAL_WORKER, "runs":
            return copy.worker_runs
        case EntityKind.LOGICAL_WORKER, _:
            return copy.instances
        case _:
            return copy.children


def _is_owner(side: Side) -> bool:
    return any(side == owner for owner, _ in RELATIONS)
