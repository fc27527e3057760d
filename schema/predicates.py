"""What the filters mean: each becomes one Python expression over a record, and says which indexes may help.

The constants of a filter never stand in the source, so filters of one shape share their compiled code.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache, partial
from itertools import islice
from types import CodeType
from typing import Any, TypeAlias, TypeVar

import strawberry

from schema.errors import BadInput
from schema.filters import (
    Filter,
    LogicalWorkerFilter,
    PhysicalWorkerFilter,
    RunFilter,
    StringFilter,
    StudyFilter,
    keys_of,
)
from server.database.entities import Surroundings
from server.database.json_text import EMPTY, is_same_json, read_json
from server.database.links import Position
from server.database.models import RunModel, RunStatus
from server.database.ordered import Ordered, Place
from server.database.read_model import EPOCH, Table

E = TypeVar("E")
Parts: TypeAlias = Sequence[Sequence[Position]]
Among: TypeAlias = Callable[[], Parts]
"""Where all that match are to be found, looked up when asked."""

_MANY = 8
"""Values of which a list is asked for each by itself: for a few that is twice as fast as a set."""
_DEEPEST = 20
"""Levels of one expression: Python's parser refuses some hundred parentheses in each other."""
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of a filter, or a part of one."""

    source: str
    """An expression over `record`."""
    among: Among | None = None


_ALWAYS = Meaning("True")


class Predicate:
    """A filter made ready for the records of its kind, as they are and as they will be."""

    def __init__(self, meaning: Meaning, constants: Mapping[str, Any]) -> None:
        self._meaning = meaning
        self._names = {"__builtins__": {}, **constants}

    @cached_property
    def matches(self) -> Callable[[Any], bool]:
        test: Callable[[Any], bool] = eval(_compiled(f"lambda record: {self._meaning.source}"), self._names)  # noqa: S307 - our own source: what a client sends is among the constants
        return test

    def select(self, positions: Sequence[Place], records: Mapping[str, Any]) -> list[Place]:
        source = f"[place for place in places for record in (records[place[1]],) if {self._meaning.source}]"
        found: list[Place] = eval(  # noqa: S307 - as above
            _compiled(f"lambda places, records: {source}"), self._names
        )(positions, records)
        return found

    def among(self) -> Parts | None:
        return None if self._meaning.among is None else self._meaning.among()


@lru_cache(maxsize=512)
def _compiled(source: str) -> CodeType:
    return compile(source, "<filter>", "eval")


def predicate_of(given: Filter | None, around: Surroundings, path: str = "filter") -> Predicate | None:
    """None for a filter that says nothing. Raises `BadInput` for null where it means nothing."""
    if given is None or given is strawberry.UNSET:
        return None
    compiler = _Compiler(around)
    meaning = compiler.meaning(given, path)  # refuses what can't be meant, also where nothing is left to test
    return Predicate(meaning, compiler.constants) if any(True for _ in keys_of(given)) else None


def matching(items: Ordered[E], given: Filter | None, around: Surroundings) -> Ordered[E]:
    """Those that match a filter that a client gives, else all. Raises `BadInput`."""
    predicate = predicate_of(given, around)
    return items if predicate is None else items.where(predicate)


class _Compiler:
    """Of one filter: gathers its constants."""

    def __init__(self, around: Surroundings) -> None:
        self.constants: dict[str, Any] = {}
        self._around = around
        self._model = around.read_model
        self._depth = 0

    def meaning(self, given: Filter, path: str) -> Meaning:
        match given:
            case StudyFilter():
                own = self._study(given, path)
            case RunFilter():
                own = self._run(given, path)
            case LogicalWorkerFilter():
                own = self._logical_worker(given, path)
            case PhysicalWorkerFilter():
                own = self._physical_worker(given, path)
        return _all([*self._nested(given, path), *own])

    def _bind(self, value: object) -> str:
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def _nested(self, given: Filter, path: str) -> list[Meaning]:
        meanings = []
        if (every := _value(given, "and_", path)) is not strawberry.UNSET:
            meanings += [self._inner(one, f"{path}.and[{index}]") for index, one in enumerate(every)]
        if (some := _value(given, "or_", path)) is not strawberry.UNSET:
            meanings.append(_any([self._inner(one, f"{path}.or[{index}]") for index, one in enumerate(some)]))
        if (none := _value(given, "not_", path)) is not strawberry.UNSET:
            meanings.append(Meaning(f"(not {self._inner(none, f'{path}.not').source})"))
        return meanings

    def _inner(self, given: Filter, path: str) -> Meaning:
        self._depth += 1
        meaning = self.meaning(given, path)
        self._depth -= 1
        if self._depth % _DEEPEST == _DEEPEST - 1:
            test = Predicate(meaning, dict(self.constants)).matches
            return Meaning(f"{self._bind(test)}(record)", meaning.among)
        return meaning

    def _study(self, given: StudyFilter, path: str) -> list[Meaning]:
        return [
            *self._id(given, path, self._model.studies),
            *self._text(given, "name", path, "record.name", self._model.studies),
            *self._has_runs(given, path, self._model.study_runs.members_of),
            *self._annotation(given, path, self._model.studies),
        ]

    def _logical_worker(self, given: LogicalWorkerFilter, path: str) -> list[Meaning]:
        return [
            *self._id(given, path, self._model.logical_workers),
            *self._text(given, "name", path, "record.name"),
            *self._list(given, "queues", path, "record.queues"),
            *self._has_runs(given, path, self._model.worker_runs.members_of),
        ]

    def _physical_worker(self, given: PhysicalWorkerFilter, path: str) -> list[Meaning]:
        return [
            *self._id(given, path, self._model.physical_workers),
            *self._text(given, "name", path, "record.name", self._model.physical_workers),
            *self._text(given, "host", path, "record.host"),
            *self._status(given, path, "record.worker_status", self._model.worker_statuses.of),
            *self._reference(given, "logical_worker_id", path, self._model.instances.members_of),
            *self._heartbeat(given, path),
            *self._number(given, "restart_count", path, "record.restart_count"),
        ]

    def _run(self, given: RunFilter, path: str) -> list[Meaning]:
        return [
            *self._id(given, path, self._model.runs),
            *self._text(given, "workspace", path, "record.workspace", self._model.runs),
            *self._status(given, path, "record.run_status", self._model.run_statuses.of),
            *self._is_finished(given, path),
            *self._list(given, "queues", path, "record.queues"),
            *self._reference(given, "study_id", path, self._model.study_runs.members_of),
            *self._one_study(given, path),
            *self._list(given, "worker_ids", path, "record.workers", self._model.worker_runs.members_of),
            *self._any_worker(given, path),
            *self._launched(given, path),
            *self._annotation(given, path, self._model.runs),
        ]

    # Each of these is the meaning of one key: none where it is left out.

    def _id(self, of: Filter, path: str, table: Table[Any]) -> list[Meaning]:
        def places(ids: Iterable[str]) -> Parts:
            return [[table.position(record)] for id_ in ids if (record := table.get(id_)) is not None]

        return self._reference(of, "id", path, None, places)

    def _reference(
        self,
        of: Filter,
        name: str,
        path: str,
        group: Callable[[str], Sequence[Position]] | None,
        places: Callable[[Iterable[str]], Parts] | None = None,
    ) -> list[Meaning]:
        """Of an id, with the index that finds records by it."""
        given, path = _key(of, name, path)
        if given is strawberry.UNSET:
            return []
        subject = f"record.{name}"
        find = places or (lambda ids: [group(id_) for id_ in ids] if group else [])
        meanings = []
        if given.eq is None:
            meanings.append(Meaning(f"{subject} is None"))
        elif given.eq is not strawberry.UNSET:
            meanings.append(Meaning(f"{subject} == {self._bind(given.eq)}", lambda: find([given.eq])))
        if (some := _value(given, "in_", path)) is not strawberry.UNSET:
            among = frozenset(some)
            meanings.append(Meaning(f"{subject} in {self._bind(among)}", lambda: find(among)))
        if (none := _value(given, "not_in", path)) is not strawberry.UNSET:
            meanings.append(Meaning(f"{subject} not in {self._bind(frozenset(none))}"))
        return [_all([*meanings, *self._null(given, path, subject)])]

    def _null(self, given: Any, path: str, subject: str) -> list[Meaning]:
        wanted = _value(given, "is_null", path)
        if wanted is strawberry.UNSET:
            return []
        return [Meaning(f"{subject} is None" if wanted else f"{subject} is not None")]

    def _text(self, of: Filter, name: str, path: str, subject: str, table: Table[Any] | None = None) -> list[Meaning]:
        """With the table that finds its records by it, where one does."""
        given, path = _key(of, name, path)
        if given is strawberry.UNSET:
            return []
        folds = bool(_value(given, "ignore_case", path))
        fold: Callable[[str], str] = str.casefold if folds else str
        folded = f"{subject}.casefold()" if folds else subject

        def found(names: Iterable[str]) -> Among | None:
            if folds or table is None:
                return None
            return lambda: [[table.position(table.records[id_])] for name in names for id_ in table.ids_named(name)]

        meanings = []
        if given.eq is None:
            meanings.append(Meaning(f"{subject} is None"))
        elif given.eq is not strawberry.UNSET:
            wanted = self._bind(fold(given.eq))
            meanings.append(Meaning(f"({subject} is not None and {folded} == {wanted})", found([given.eq])))
        if (some := _value(given, "in_", path)) is not strawberry.UNSET:
            among = frozenset(map(fold, some))
            meanings.append(Meaning(f"({subject} is not None and {folded} in {self._bind(among)})", found(among)))
        if (none := _value(given, "not_in", path)) is not strawberry.UNSET:
            unwanted = self._bind(frozenset(map(fold, none)))
            meanings.append(Meaning(f"({subject} is None or {folded} not in {unwanted})"))
        meanings += self._parts(given, path, subject, folded, fold)
        return [_all([*meanings, *self._null(given, path, subject)])]

    def _parts(
        self, given: StringFilter, path: str, subject: str, folded: str, fold: Callable[[str], str]
    ) -> list[Meaning]:
        tests = {"contains": "{part} in {text}", "starts_with": "{text}.startswith({part})"}
        tests["ends_with"] = "{text}.endswith({part})"
        return [
            Meaning(f"({subject} is not None and {test.format(part=self._bind(fold(part)), text=folded)})")
            for name, test in tests.items()
            if (part := _value(given, name, path)) is not strawberry.UNSET
        ]

    def _status(self, of: Filter, path: str, subject: str, group: Callable[[Any], Sequence[Position]]) -> list[Meaning]:
        given, path = _key(of, "status", path)
        if given is strawberry.UNSET:
            return []
        meanings = []
        if (wanted := _value(given, "eq", path)) is not strawberry.UNSET:
            meanings.append(self._is_one_of([wanted], subject, group))
        if (some := _value(given, "in_", path)) is not strawberry.UNSET:
            meanings.append(self._is_one_of(some, subject, group))
        if (none := _value(given, "not_in", path)) is not strawberry.UNSET:
            meanings.append(Meaning(f"(not {self._is_one_of(none, subject, group).source})"))
        return [_all(meanings)]

    def _is_one_of(self, values: Iterable[Any], subject: str, group: Callable[[Any], Sequence[Position]]) -> Meaning:
        """Identity is a fraction of the cost of an enum's hash."""
        distinct = list(dict.fromkeys(values))
        tests = [Meaning(f"{subject} is {self._bind(value)}") for value in distinct]
        return Meaning(_any(tests).source, lambda: [group(value) for value in distinct])

    def _is_finished(self, of: RunFilter, path: str) -> list[Meaning]:
        wanted = _value(of, "is_finished", path)
        if wanted is strawberry.UNSET:
            return []
        statuses = [status for status in RunStatus if status.is_finished is wanted]
        return [self._is_one_of(statuses, "record.run_status", self._model.run_statuses.of)]

    def _list(
        self,
        of: Filter,
        name: str,
        path: str,
        subject: str,
        group: Callable[[str], Sequence[Position]] | None = None,
    ) -> list[Meaning]:
        """With the index that finds records by one of the list's values, where there is one."""
        given, path = _key(of, name, path)
        if given is strawberry.UNSET:
            return []
        meanings = []
        if (some := _value(given, "contains_any", path)) is not strawberry.UNSET:
            among = frozenset(some)
            found = None if group is None else (lambda: [group(value) for value in among])
            source = _any(self._each(among, subject)).source
            if len(among) > _MANY:
                source = f"(not {self._bind(among)}.isdisjoint({subject}))"
            meanings.append(Meaning(source, found))
        if (every := _value(given, "contains_all", path)) is not strawberry.UNSET:
            needed = frozenset(every)
            found = None if group is None or not needed else (lambda: [min((group(one) for one in needed), key=len)])
            source = _all(self._each(needed, subject)).source
            if len(needed) > _MANY:
                source = f"{self._bind(needed)}.issubset({subject})"
            meanings.append(Meaning(source, found))
        if (empty := _value(given, "is_empty", path)) is not strawberry.UNSET:
            meanings.append(Meaning(f"(not {subject})" if empty else f"({subject} != ())"))
        return [_all(meanings)]

    def _each(self, values: Iterable[str], subject: str) -> list[Meaning]:
        return [Meaning(f"{self._bind(value)} in {subject}") for value in islice(sorted(values), _MANY)]

    def _has_runs(self, of: Filter, path: str, members: Callable[[str], Sequence[Position]]) -> list[Meaning]:
        wanted = _value(of, "has_runs", path)
        if wanted is strawberry.UNSET:
            return []
        return [Meaning(f"({self._bind(members)}(record.id) {'!=' if wanted else '=='} ())")]

    def _annotation(self, of: RunFilter | StudyFilter, path: str, table: Table[Any]) -> list[Meaning]:
        given, path = _key(of, "annotation", path)
        if given is strawberry.UNSET:
            return []
        annotations, key = self._model.annotations, given.key
        exists = _value(given, "exists", path)
        if exists is given.eq is strawberry.UNSET:
            raise BadInput(f"{path}: pass `eq` or `exists` beside the key.", "filter")

        def values_of(id_: str) -> Any:
            return read_json(annotations.get(id_, EMPTY))

        def places() -> Parts:
            return [[table.position(record)] for id_ in annotations if (record := table.get(id_)) is not None]

        meanings = []
        if exists is not strawberry.UNSET:
            source = f"{self._bind(lambda id_: key in values_of(id_))}(record.id)"
            meanings.append(Meaning(source, places) if exists else Meaning(f"(not {source})"))
        if given.eq is None:
            meanings.append(Meaning(f"{self._bind(lambda id_: key not in values_of(id_))}(record.id)"))
        elif (wanted := given.eq) is not strawberry.UNSET:
            test = self._bind(lambda id_: key in (values := values_of(id_)) and is_same_json(values[key], wanted))
            meanings.append(Meaning(f"{test}(record.id)", places))
        return [_all(meanings)]

    def _number(self, of: Filter, name: str, path: str, subject: str) -> list[Meaning]:
        given, path = _key(of, name, path)
        if given is strawberry.UNSET:
            return []
        signs = {"eq": "==", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
        meanings = [
            Meaning(f"{subject} {sign} {self._bind(bound)}")
            for name, sign in signs.items()
            if (bound := _value(given, name, path)) is not strawberry.UNSET
        ]
        return [_all(meanings)]

    def _heartbeat(self, of: PhysicalWorkerFilter, path: str) -> list[Meaning]:
        given, path = _key(of, "heartbeat_at", path)
        if given is strawberry.UNSET:
            return []
        subject = "record.heartbeat_timestamp"
        instant = self._bind(self._around.instant)
        meanings = [
            Meaning(f"({subject} is not None and {instant}({subject}) {sign} {self._bind(bound)})")
            for name, sign in (("before", "<"), ("after", ">"))
            if (bound := _value(given, name, path)) is not strawberry.UNSET
        ]
        return [_all([*meanings, *self._null(given, path, subject)])]

    def _launched(self, of: RunFilter, path: str) -> list[Meaning]:
        """By the seconds that runs are ordered by: only within a day of the bound does the time zone matter."""
        given, path = _key(of, "launched_at", path)
        if given is strawberry.UNSET:
            return []
        order = self._model.runs.order
        value = f"{self._bind(self._model.runs.positions)}[record.id][0]"  # minus the seconds; positive without any
        exactly = self._bind(lambda run: self._around.instant(run.launched_at))
        meanings = []
        for name, sign in (("before", "<"), ("after", ">")):
            if (bound := _value(given, name, path)) is strawberry.UNSET:
                continue
            nearby = _seconds(bound)
            early, late = -(nearby - _DAY), -(nearby + _DAY)
            near = f"{self._bind(late)} <= value <= {self._bind(early)}"
            exact = f"{exactly}(record) {sign} {self._bind(bound)}"
            if sign == "<":
                source = f"((value := {value}) > {self._bind(early)} and value <= 0 or {near} and {exact})"
                among = partial(_between, order, late, 1)
            else:
                source = f"((value := {value}) < {self._bind(late)} or {near} and {exact})"
                among = partial(_between, order, None, early + 1)
            meanings.append(Meaning(source, among))
        if (wanted := _value(given, "is_null", path)) is not strawberry.UNSET:
            meanings.append(Meaning(f"({value} {'>' if wanted else '<='} 0)"))
        return [_all(meanings)]

    def _one_study(self, of: RunFilter, path: str) -> list[Meaning]:
        """Of the study that it names, else of the first that lists it: see `RunEntity.study`."""
        given, path = _key(of, "study", path)
        if given is strawberry.UNSET:
            return []
        studies, links = self._model.studies, self._model.study_runs
        predicate = self._apart(given, path)
        matches = _remembered(predicate.matches, self._model.annotations)

        def test(run: RunModel) -> bool:
            study = None if run.study_id is None else studies.records.get(run.study_id)
            if study is None:
                owners = links.owners_of(run.id)
                if not owners:
                    return False
                study = studies.records[owners[0]]
            return matches(study)

        among = _members(
            Ordered(studies.order, studies.records, studies.records, "", whole=True), predicate, links.members_of
        )
        return [Meaning(f"{self._bind(test)}(record)", among)]

    def _any_worker(self, of: RunFilter, path: str) -> list[Meaning]:
        given, path = _key(of, "worker", path)
        if given is strawberry.UNSET:
            return []
        workers, links = self._model.logical_workers, self._model.worker_runs
        predicate = self._apart(given, path)
        matches = _remembered(predicate.matches, self._model.annotations)

        def test(run: RunModel) -> bool:
            for ids in (run.workers, links.strays_of(run.id)):
                for id_ in ids:
                    worker = workers.records.get(id_)
                    if worker is not None and matches(worker):
                        return True
            return False

        among = _members(
            Ordered(workers.order, workers.records, workers.records, "", whole=True), predicate, links.members_of
        )
        return [Meaning(f"{self._bind(test)}(record)", among)]

    def _apart(self, given: Filter, path: str) -> Predicate:
        """Of a filter over records of another kind."""
        other = _Compiler(self._around)
        return Predicate(other.meaning(given, path), other.constants)


def _between(order: Sequence[Position], first: int | None, stop: int) -> Parts:
    """The runs whose order values are from the first on and below the other."""
    start = 0 if first is None else bisect_left(order, (first, ""))
    return [order[start : bisect_left(order, (stop, ""))]]


def _members(owners: Ordered[Any], predicate: Predicate, members: Callable[[str], Sequence[Position]]) -> Among:
    return lambda: [found for _, id_ in owners.where(predicate).positions if (found := members(id_))]


def _remembered(matches: Callable[[Any], bool], annotations: Mapping[str, str]) -> Callable[[Any], bool]:
    """A record never changes: another one takes its place. So do its annotations."""
    verdicts: dict[str, tuple[Any, str | None, bool]] = {}

    def test(record: Any) -> bool:
        known = verdicts.get(record.id)
        noted = annotations.get(record.id)
        if known is None or known[0] is not record or known[1] is not noted:
            known = verdicts[record.id] = record, noted, matches(record)
        return known[2]

    return test


def _all(meanings: Sequence[Meaning]) -> Meaning:
    """One index is enough, the one that leaves least."""
    if not meanings:
        return _ALWAYS
    found = [meaning.among for meaning in meanings if meaning.among is not None]
    among = (lambda: min((one() for one in found), key=lambda parts: sum(map(len, parts)))) if found else None
    return Meaning(_joined(" and ", meanings), among)


def _any(meanings: Sequence[Meaning]) -> Meaning:
    """Indexes help where each alternative has one."""
    if not meanings:
        return Meaning("False", list)
    found = [meaning.among for meaning in meanings if meaning.among is not None]
    if len(found) < len(meanings):
        return Meaning(_joined(" or ", meanings))
    return Meaning(_joined(" or ", meanings), lambda: [part for one in found for part in one()])


def _joined(by: str, meanings: Sequence[Meaning]) -> str:
    sources = [meaning.source for meaning in meanings]
    return sources[0] if len(sources) == 1 else f"({by.join(sources)})"


def _seconds(instant: datetime) -> int:
    """Of the instant as if it were local, since the year 1, as runs are ordered by."""
    return int((instant.astimezone(UTC).replace(tzinfo=None) - EPOCH) / timedelta(seconds=1))


def _key(given: Filter, name: str, path: str) -> tuple[Any, str]:
    """The filter under a key, UNSET where it is left out, and its path."""
    return _value(given, name, path), f"{path}.{_graphql(name)}"


def _value(given: Any, name: str, path: str) -> Any:
    """UNSET where the key is left out. Raises `BadInput` for null."""
    value = getattr(given, name)
    if value is None:
        raise BadInput(f"{path}.{_graphql(name)}: null says nothing here; leave the key out.", "filter")
    return value


def _graphql(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name).rstrip("_")
