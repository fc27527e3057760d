"""A many-to-many relation between entities, which Merlin stores on both sides.

Merlin stores a link twice: the owner lists its members (`study.runs`), and the member names its owners
(`run.study_id`). Concurrent writers lose either half, so a link stands where at least one side has it. What both sides
agree on costs one entry; only where an owner lists a member that does not name it back (a stray) is something kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Generic, TypeVar

from server.database.backends.portions import portions
from server.database.models import Model
from server.database.ordered import SortKey
from server.database.steps import RECORDS_PER_STEP, portions_of

Owner = TypeVar("Owner", bound=Model)
Member = TypeVar("Member", bound=Model)

_LONG = 5_000
"""Ids of a list that are looked up in one step: it takes a millisecond, or some."""


def insert(order: list[SortKey], position: SortKey) -> None:
    """Keeps the order sorted and without duplicates."""
    index = bisect_left(order, position)
    if index == len(order) or order[index] != position:
        order.insert(index, position)


def discard(order: list[SortKey], position: SortKey) -> None:
    index = bisect_left(order, position)
    if index < len(order) and order[index] == position:
        del order[index]


class Links(Generic[Owner, Member]):
    """Told of every change of owners and members, one by one and then to `settle`; it looks into their live tables."""

    def __init__(
        self,
        owners: Mapping[str, Owner],
        members: Mapping[str, Member],
        *,
        listed: Callable[[Owner], tuple[str, ...]],
        named: Callable[[Member], tuple[str, ...]],
        position: Callable[[Owner | Member], SortKey],
    ) -> None:
        self._owners = owners
        self._stands = owners.__contains__
        self._members = members
        self._listed = listed
        self._named = named
        self._position = position
        self._by_owner: dict[str, list[SortKey]] = {}
        self._strays: dict[str, tuple[str, ...]] = {}
        self.most_members = 0
        """The most that an owner had since the links were last rebuilt."""
        self.most_owners = 0
        """The most that a member had since then."""
        self._left: dict[str, set[str]] = {}
        """By owner, the members that ceased to name it since links were settled: it may still list them."""
        self._searched: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {}
        """By owner, a list that was searched, also as a set: where members leave in many steps, each searches it."""
        self.listeners: list[Callable[[str, str], None]] = []
        """Called with the ids of the owner and the member of a link that has come or gone, unless by `rebuild`."""

    def members_of(self, owner_id: str) -> Sequence[SortKey]:
        """The members that exist, in their kind's default order. Not to be changed."""
        return self._by_owner.get(owner_id, ())

    def owners_of(self, member_id: str) -> list[str]:
        """The owners that exist: those the member names, in its order, then those that only list it, in theirs."""
        member = self._members.get(member_id)
        named = () if member is None else self._named(member)
        found = list(filter(self._stands, named if len(named) <= 1 else dict.fromkeys(named)))
        if member_id in self._strays:  # hardly ever
            found += [id_ for _, id_ in sorted(self._position(self._owners[id_]) for id_ in self._strays[member_id])]
        return found

    def one_sided_of(self, member_id: str) -> Sequence[str]:
        """The owners that list it without being named by it."""
        return self._strays.get(member_id, ())

    def one_sided(self) -> Iterable[str]:
        """The ids of all members of which that is so, some of which may not exist."""
        return self._strays

    def rebuild(self, order: Sequence[SortKey]) -> Iterator[None]:
        """Step by step. `order`: the positions of all members, sorted."""
        self._by_owner.clear()
        self._strays.clear()
        self._left.clear()
        self._searched.clear()
        self.most_members = self.most_owners = 0
        by_owner, members, named_of = self._by_owner, self._members, self._named
        for positions in portions_of(order, RECORDS_PER_STEP):
            for position in positions:
                if named := named_of(members[position[1]]):
                    self.most_owners = max(self.most_owners, len(named))
                    for owner_id in named if len(named) == 1 else dict.fromkeys(named):
                        by_owner.setdefault(owner_id, []).append(position)
            yield
        for owner_ids in portions(self._owners, lambda owner_id: 1 + len(self._listed(self._owners[owner_id])), _LONG):
            for owner_id in owner_ids:
                yield from self._add_listed(owner_id)
            yield
        self.most_members = max(map(len, by_owner.values()), default=0)

    def _add_listed(self, owner_id: str) -> Iterator[None]:
        """Adds the members that the owner lists without being named by them."""
        listed_ids = self._listed(self._owners[owner_id])
        naming: set[str] = set()
        for positions in portions_of(self._by_owner.get(owner_id, ()), _LONG):
            naming.update(map(itemgetter(1), positions))
            if len(positions) == _LONG:
                yield
        for some in portions_of(listed_ids, _LONG):
            if not naming.issuperset(some):  # hardly ever, and told without a look at each member
                strays = dict.fromkeys(member_id for member_id in some if member_id not in naming)
                naming.update(strays)
                self._add_strays(owner_id, strays)
            if len(some) == _LONG:
                yield

    def _add_strays(self, owner_id: str, member_ids: Iterable[str]) -> None:
        """Adds many at once: to insert each in its place takes longer."""
        found = []
        for member_id in member_ids:
            self._add_one_sided(member_id, owner_id)
            if (member := self._members.get(member_id)) is not None:
                found.append(self._position(member))
        if found:
            order = self._by_owner.setdefault(owner_id, [])
            order += found
            order.sort()

    def owner_changed(self, owner_id: str, before: Owner | None, after: Owner | None) -> None:
        """To be called when the table holds `after` already."""
        old = () if before is None else self._listed(before)
        new = () if after is None else self._listed(after)
        if old == new:
            return
        gone, come = set(old).difference(new), set(new).difference(old)
        for member_id in self._unnamed(owner_id, gone):
            self._drop_one_sided(member_id, owner_id)
            if (member := self._members.get(member_id)) is not None:
                self._unlink(owner_id, self._position(member))
        self._add_all_one_sided(owner_id, come)

    def member_changed(self, member_id: str, before: Member | None, after: Member | None) -> None:
        """To be called when the table holds `after` already."""
        old_named = frozenset() if before is None else frozenset(self._named(before))
        new_named = frozenset() if after is None else frozenset(self._named(after))
        old_position = None if before is None else self._position(before)
        new_position = None if after is None else self._position(after)
        if old_named == new_named and old_position == new_position:
            return
        strays = self._strays.get(member_id, ())
        if old_position is not None:
            for owner_id in old_named.union(strays):
                self._unlink(owner_id, old_position)
        for owner_id in old_named - new_named:
            self._left.setdefault(owner_id, set()).add(member_id)
        for owner_id in new_named.intersection(strays):
            self._drop_one_sided(member_id, owner_id)
        if new_position is not None:
            for owner_id in new_named.union(self._strays.get(member_id, ())):
                self._link(owner_id, new_position)
            self.most_owners = max(self.most_owners, len(new_named) + len(self._strays.get(member_id, ())))

    def settle(self) -> None:
        """To be called after the last of some changes: a long list is searched once for all members that left."""
        left, self._left = self._left, {}
        for owner_id, member_ids in left.items():
            if (owner := self._owners.get(owner_id)) is not None:
                self._add_all_one_sided(owner_id, member_ids & self._listed_set(owner_id, self._listed(owner)))

    def forget_searched(self) -> None:
        """To be called after the last of many small changes: frees the memory that made them fast."""
        self._searched.clear()

    def _listed_set(self, owner_id: str, listed: tuple[str, ...]) -> frozenset[str]:
        known = self._searched.get(owner_id)
        if known is None or known[0] is not listed:
            known = self._searched[owner_id] = listed, frozenset(listed)
        return known[1]

    def _unnamed(self, owner_id: str, member_ids: set[str] | tuple[str, ...]) -> list[str]:
        """Which of the listed members do not name the owner themselves; a missing one names nobody."""
        return [
            member_id
            for member_id in dict.fromkeys(member_ids)
            if (member := self._members.get(member_id)) is None or owner_id not in self._named(member)
        ]

    def _link(self, owner_id: str, position: SortKey) -> None:
        order = self._by_owner.setdefault(owner_id, [])
        insert(order, position)
        self.most_members = max(self.most_members, len(order))
        self._tell(owner_id, position)

    def _unlink(self, owner_id: str, position: SortKey) -> None:
        order = self._by_owner.get(owner_id)
        if order is not None:
            discard(order, position)
            if not order:
                del self._by_owner[owner_id]
            self._tell(owner_id, position)

    def _tell(self, owner_id: str, position: SortKey) -> None:
        for listener in self.listeners:
            listener(owner_id, position[1])

    def _add_all_one_sided(self, owner_id: str, member_ids: set[str]) -> None:
        for member_id in self._unnamed(owner_id, member_ids):
            self._add_one_sided(member_id, owner_id)
            if (member := self._members.get(member_id)) is not None:
                self._link(owner_id, self._position(member))

    def _add_one_sided(self, member_id: str, owner_id: str) -> None:
        strays = self._strays[member_id] = tuple(dict.fromkeys((*self._strays.get(member_id, ()), owner_id)))
        if (member := self._members.get(member_id)) is not None:
            self.most_owners = max(self.most_owners, len(self._named(member)) + len(strays))

    def _drop_one_sided(self, member_id: str, owner_id: str) -> None:
        left = tuple(id_ for id_ in self._strays.get(member_id, ()) if id_ != owner_id)
        if left:
            self._strays[member_id] = left
        else:
            self._strays.pop(member_id, None)
