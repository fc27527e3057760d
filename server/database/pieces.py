"""Pieces of answers: what a selection says of an entity, as JSON, kept until the entity looks different.

A piece is valid while the entity's record, its annotations and its links stay as they are, and the looks of the
entities that these lead to. The looks of a study or a logical worker are all of its record but its lists of runs and
physical workers: these grow with every run, and no selection that has pieces shows them.

A change only notes the ids of the entities that may look different; the pieces of a selection catch up when they are
next used. So a change costs the same however many pieces there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from server.database.links import Links
from server.database.models import EntityKind, LogicalWorkerModel, Model, StudyModel
from server.database.read_model import Change, ReadModel

MAX_BYTES = 2**24
"""Of all pieces."""
OVERHEAD = 160
"""Bytes that a piece takes besides its text, about."""
MAX_SELECTIONS = 200
MAX_BRACKETS = 100
"""Opening brackets in a piece. With more it may be nested so deeply that orjson refuses it as a part of an answer."""
MAX_NOTED = 2_000
"""Entities of one kind that are noted before the pieces of that kind have to catch up, or are dropped."""
MAX_MEMBERS = 500
"""Members of an owner that are noted one by one when it looks different."""

_LOOKS: Mapping[type[Any], Callable[[Any], object]] = {
    StudyModel: attrgetter("name", "additional_data"),
    LogicalWorkerModel: attrgetter("name", "queues", "additional_data"),
}


class Selection(NamedTuple):
    """Fields of the entities of one kind: functions of a record, its annotations, and the looks of what it links to."""

    text: str
    """Equal texts select the same, under the same keys."""
    kind: EntityKind


class SelectionPieces(dict[str, Any]):
    """The pieces of one selection by the ids of the entities; False where an entity was seen only once.

    A piece is made of the second answer: where entities change faster than they are read, none is made in vain.
    """

    def __init__(self, selection: Selection, pieces: Pieces) -> None:
        super().__init__()
        self.selection = selection
        self.size = 0
        """Bytes, about."""
        self.counted = 0
        """How many entries are counted in the size."""
        self.step = -1
        """The step of `Pieces` that they have caught up with."""
        self.noted = 0
        """How many of the noted ids of the kind were dropped."""
        self.drops = -1
        """How often all pieces of the kind had been dropped."""
        self._pieces: Pieces | None = pieces

    def keep(self, id_: str, answer: Any) -> Any:
        """The piece of an answer that was just made, or the answer itself."""
        try:
            text = orjson.dumps(answer)
        except TypeError:  # the response as a whole will be encoded in another way
            return answer
        if text.count(b"{") + text.count(b"[") > MAX_BRACKETS:
            return answer
        piece = self[id_] = orjson.Fragment(bytes(memoryview(text)))  # in memory of its own size
        self._grow(len(text))
        return piece

    def count(self) -> None:
        """Counts the entries that came since this was called last."""
        new = len(self) - self.counted
        self.counted += new
        self._grow(new * OVERHEAD)

    def drop(self, ids: Iterable[str]) -> None:
        self.count()
        for id_ in ids:
            self.pop(id_, None)
        if gone := self.counted - len(self):
            size = self.size * gone // self.counted
            self.counted -= gone
            self._grow(-size)

    def clear(self) -> None:
        super().clear()
        self.counted = 0
        self._grow(-self.size)

    def detach(self) -> None:
        """To be called when they are no longer kept: an answer may still be using them."""
        self.clear()
        self._pieces = None

    def _grow(self, size: int) -> None:
        if self._pieces is not None:
            self.size += size
            self._pieces.grow(size)


class Pieces:
    """The pieces of all selections, up to a number of bytes."""

    def __init__(self, read_model: ReadModel, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        """Bytes, about."""
        self._selections: OrderedDict[str, SelectionPieces] = OrderedDict()
        self._step = 0
        """Counts the changes after which something may look different."""
        self._noted: Mapping[EntityKind, list[str]] = {kind: [] for kind in EntityKind}
        """The ids of entities that may look different."""
        self._drops = dict.fromkeys(EntityKind, 0)
        """How often any entity of a kind might look different."""
        self._members: Mapping[EntityKind, Sequence[tuple[EntityKind, Links[Any, Any]]]] = {
            EntityKind.STUDY: ((EntityKind.RUN, read_model.study_runs),),
            EntityKind.LOGICAL_WORKER: (
                (EntityKind.RUN, read_model.worker_runs),
                (EntityKind.PHYSICAL_WORKER, read_model.instances),
            ),
        }
        """The links whose members show their owners."""
        read_model.listen(self._changed)

    def of(self, selection: Selection) -> SelectionPieces:
        """The pieces that are valid now, and until the read model changes."""
        found = self._selections.get(selection.text)
        if found is None:
            found = self._selections[selection.text] = SelectionPieces(selection, self)
            if len(self._selections) > MAX_SELECTIONS:
                self._forget_oldest()
        else:
            self._selections.move_to_end(selection.text)
        if found.step != self._step:
            self._catch_up(found)
        if found.counted != len(found):
            found.count()
        return found

    def grow(self, size: int) -> None:
        """Notes that pieces take more bytes; drops those of the selections used longest ago if it is too much."""
        self.size += size
        if self.size > self.max_bytes:
            while self.size > self.max_bytes // 2 and self._selections:
                self._forget_oldest()

    def clear(self) -> None:
        """Drops all."""
        while self._selections:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, oldest = self._selections.popitem(last=False)
        oldest.detach()

    def _catch_up(self, found: SelectionPieces) -> None:
        kind = found.selection.kind
        noted = self._noted[kind]
        if found.drops != self._drops[kind]:
            found.clear()
            found.drops = self._drops[kind]
        elif found:
            found.drop(noted[found.noted :])
        found.noted = len(noted)
        found.step = self._step

    def _changed(self, _revision: int, changes: Sequence[Change]) -> None:
        """Listens to the read model."""
        if not self._selections:
            return
        self._step += 1
        for some in self._members.values():
            for kind, links in some:
                if links.relinked is None:
                    self._drops[kind] += 1
                else:
                    self._note(kind, [member_id for _, member_id in links.relinked])
        for change in changes:
            if not (change.observed or (not change.annotated and _look_alike(change.before, change.after))):
                self._note_change(change)

    def _note_change(self, change: Change) -> None:
        kind, id_ = change.key
        for one in EntityKind if change.annotated else (kind,):  # annotations belong to an id, whatever its kind
            self._note(one, (id_,))
            for member_kind, links in self._members.get(one, ()):
                members = links.members_of(id_)
                if len(members) > MAX_MEMBERS:
                    self._drops[member_kind] += 1
                else:
                    self._note(member_kind, [member_id for _, member_id in members])

    def _note(self, kind: EntityKind, ids: Iterable[str]) -> None:
        noted = self._noted[kind]
        noted += ids
        if len(noted) <= MAX_NOTED:
            return
        for found in self._selections.values():
            if found.selection.kind is kind:
                if not found.noted:  # not used since this was done last
                    found.clear()
                self._catch_up(found)
                found.noted, found.step = 0, -1
        noted.clear()


def _look_alike(before: Model | None, after: Model | None) -> bool:
    looks = _LOOKS.get(type(before))
    return looks is not None and after is not None and looks(before) == looks(after)
