"""Whom a change touches: the entities that may look different after it, by what of them may.

What an entity shows is its own (its fields, and the entities that it belongs to, such as the study of a run) or its
members' (the runs of a study). A run that changes touches itself and the members of its study and its workers, but not
what another run of the study shows, also where that shows the study's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.database.links import Links
from server.database.models import EntityKind, Key, LogicalWorkerModel, Model, StudyModel, name_of
from server.database.read_model import Change, ReadModel

_MOST_MEMBERS = 1_000
"""If an owner of more members appears, disappears or gets another name, that touches anything."""


@dataclass(slots=True)
class Touched:
    """What some changes touch. An id with capitals is in `own` also in small letters."""

    own: set[str] = field(default_factory=set)
    """Entities whose own part may look different, or that appeared or disappeared."""
    members: dict[str, list[Change]] = field(default_factory=dict)
    """Owners, before or after it, of members that changed, with the changes of these."""
    relinked: set[str] = field(default_factory=set)
    """Owners of which a member came, left, or has other owners, though no change in `members` says so."""
    names: set[tuple[EntityKind, str]] = field(default_factory=set)
    """Names that a record got or lost; logical workers, which Merlin does not find by name, have one here."""
    changes: dict[EntityKind, list[Change]] = field(default_factory=dict)
    """All changes by kind, but those of an owner's list of members alone."""
    renoted: set[str] = field(default_factory=set)
    """Entities whose annotations or histories changed."""
    relinked_kinds: set[EntityKind] = field(default_factory=set)
    """The kinds of which one has other owners, though no change of it says so."""


def touched_by(model: ReadModel, changes: Sequence[Change]) -> Touched | None:
    """Whom changes touch; None: it may be anything. To be called by a listener while it is told of them.

    Anything: what is told without a change (problems, the owners of names, a whole load), observations, and so many
    changes that the links were made anew.
    """
    if not (changes or model.renoted) or any(change.observed for change in changes):
        return None
    touched = Touched(renoted={*model.renoted, *(change.key.id for change in changes if change.annotated)})
    changed = {change.key for change in changes}
    unseen = [id_ for id_ in model.renoted if Key(EntityKind.RUN, id_) not in changed and id_ in model.runs.records]
    runs = [(Key(EntityKind.RUN, id_), model.runs.records[id_]) for id_ in unseen]
    for change in [*changes, *(Change(key, run, run, annotated=True) for key, run in runs)]:
        if not _add(touched, model, change):
            return None
    for links in model.links:
        if links.relinked is None:
            return None
        for owner_id, member_id in links.relinked:
            member = _member(model, links, member_id)
            if member in changed or model.get(member) is not None:
                touched.relinked.add(owner_id)
                _add_relinked(touched, model, member)
    touched.own.update([id_.lower() for id_ in touched.own])
    return touched


def _add(touched: Touched, model: ReadModel, change: Change) -> bool:
    """Returns False if it touches more than is worth naming."""
    (kind, id_), before, after = change.key, change.before, change.after
    for links in model.links_to_owners(kind):
        for owner_id in links.owners_around(id_, before, after):
            touched.members.setdefault(owner_id, []).append(change)
    if not change.annotated and _but_members(before) == _but_members(after):
        return True
    touched.own.add(id_)
    touched.changes.setdefault(kind, []).append(change)
    old_name, new_name = _name_of(before), _name_of(after)
    touched.names.update((kind, name) for name in (old_name, new_name) if name is not None and old_name != new_name)
    if before is not None and after is not None and old_name == new_name:
        return True
    touched.relinked.add(id_)
    for links in model.links_to_members(kind):
        members = links.members_of(id_)
        if len(members) > _MOST_MEMBERS:
            return False
        for _, member_id in members:
            _add_relinked(touched, model, _member(model, links, member_id))
    return True


def _add_relinked(touched: Touched, model: ReadModel, member: Key) -> None:
    touched.own.add(member.id)
    touched.relinked_kinds.add(member.kind)
    for links in model.links_to_owners(member.kind):
        touched.relinked.update(links.owners_of(member.id))


def _member(model: ReadModel, links: Links[Any, Any], id_: str) -> Key:
    return Key(EntityKind.PHYSICAL_WORKER if links is model.instances else EntityKind.RUN, id_)


def _name_of(record: Model | None) -> str | None:
    if record is None:
        return None
    return record.name if isinstance(record, LogicalWorkerModel) else name_of(record)


def _but_members(record: Model | None) -> object:
    """A record without its lists of members, which may be long."""
    match record:
        case StudyModel():
            return record.name, record.additional_data
        case LogicalWorkerModel():
            return record.name, record.queues, record.additional_data
        case _:
            return record
