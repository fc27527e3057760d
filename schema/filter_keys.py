"""The keys of the filters of entities: a table for each filter says how a key is compiled."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any

from schema.certainty import All, Atom, Choice, Exists, Fact, Measure, Text, fact
from schema.clauses import EVERYTHING, Candidates, Clause, Parts, Predicate, all_of, none_of, one_of
from schema.errors import BadInput
from schema.filter_compiler import Compiler, Key, Keys, Name, check_keys
from schema.filters import (
    AnnotationFilter,
    Filter,
    LogicalWorkerFilter,
    PhysicalWorkerFilter,
    RunFilter,
    StringFilter,
    StudyFilter,
)
from schema.scalars import id_of
from schema.value_keys import VALUE_KEYS, Annotation, Times, Values, status_in
from server.database.default_order import since_epoch
from server.database.links import Links
from server.database.models import RunModel, RunStatus, WorkerStatus
from server.database.ordered import OrderedView, SortKey
from server.database.read_model import ReadModel
from server.database.table import Table

_DAY = 86_400


def _and(compiler: Compiler, given: Iterable[Filter], path: str, about: Name) -> Clause:
    return all_of([compiler.inner(one, f"{path}[{index}]", about) for index, one in enumerate(given)])


def _or(compiler: Compiler, given: Iterable[Filter], path: str, about: Name) -> Clause:
    return one_of([compiler.inner(one, f"{path}[{index}]", about) for index, one in enumerate(given)])


def _not(compiler: Compiler, given: Filter, path: str, about: Name) -> Clause:
    return none_of(compiler.inner(given, path, about))


def _about(field_of: Callable[[Compiler, Name], Any]) -> Key:
    """A key whose value is a filter of values, such as `StringFilter`."""

    def clause(compiler: Compiler, given: Any, path: str, about: Name) -> Clause:
        field = field_of(compiler, about)
        if isinstance(given, StringFilter) and given.ignore_case:
            field = replace(field, folds=True)
        return compiler.clause(given, path, field)

    return Key(clause)


def _id(table_of: Callable[[ReadModel], Table[Any]]) -> Key:
    def field(compiler: Compiler, about: Name) -> Values:
        table = table_of(compiler.model)

        def find(ids: Iterable[str]) -> Parts:
            return [[table.position(record)] for id_ in ids if (record := table.get(id_)) is not None]

        return Values("record.id", Text((*about, "id"), nullable=False), find, _stored(table))

    return _about(field)


def _stored(table: Table[Any]) -> Callable[[str], str]:
    """The function that gives an id the spelling that it has in the database."""
    capitals = table.capitals

    def spelled(text: str) -> str:
        id_ = id_of(text)
        return capitals.get(id_, id_)

    return spelled


def _reference(
    name: str, table_of: Callable[[ReadModel], Table[Any]], links_of: Callable[[ReadModel], Links[Any, Any]]
) -> Key:
    """The id of another entity, or a list of ids."""

    def field(compiler: Compiler, about: Name) -> Values:
        members_of = links_of(compiler.model).members_of
        return Values(
            f"record.{name}",
            Text((*about, name), nullable=True),
            lambda ids: list(map(members_of, ids)),
            _stored(table_of(compiler.model)),
        )

    return _about(field)


def _text(name: str, table_of: Callable[[ReadModel], Table[Any]] | None = None, *, nullable: bool = False) -> Key:
    """A text. `table_of` gives the table that finds records by it, where there is one."""

    def field(compiler: Compiler, about: Name) -> Values:
        table = None if table_of is None else table_of(compiler.model)

        def find(names: Iterable[str]) -> Parts:
            assert table is not None
            return [[table.position(table.records[id_])] for name in names for id_ in table.ids_named(name)]

        return Values(f"record.{name}", Text((*about, name), nullable=nullable), None if table is None else find)

    return _about(field)


def _list(name: str) -> Key:
    """A list of texts, in which no index finds records."""
    return _about(lambda _compiler, about: Values(f"record.{name}", Fact((*about, name))))


def _number(name: str) -> Key:
    """A whole number, which every record has."""
    return _about(lambda _compiler, about: Values(f"record.{name}", Measure((*about, name), nullable=False)))


def _run_status(compiler: Compiler, about: Name) -> Values:
    group = compiler.model.run_statuses.of
    return Values(
        "record.run_status", Choice((*about, "status"), tuple(RunStatus)), lambda them: list(map(group, them))
    )


def _worker_status(compiler: Compiler, about: Name) -> Values:
    group = compiler.model.worker_statuses.of
    subject = Choice((*about, "status"), tuple(WorkerStatus))
    return Values("record.worker_status", subject, lambda them: list(map(group, them)))


def _has_runs(links_of: Callable[[ReadModel], Links[Any, Any]]) -> Key:
    def clause(compiler: Compiler, wanted: bool, _path: str, about: Name) -> Clause:
        members = compiler.bind(links_of(compiler.model).members_of)
        clause = Clause(f"({members}(record.id) != ())", fact(*about, "hasRuns"))
        return clause if wanted else none_of(clause)

    return Key(clause)


def _annotation(table_of: Callable[[ReadModel], Table[Any]]) -> Key:
    def clause(compiler: Compiler, given: AnnotationFilter, path: str, about: Name) -> Clause:
        one = Annotation(given.key, table_of(compiler.model), (*about, "annotation", given.key))
        clause = compiler.clause(given, path, one)
        if clause is EVERYTHING:
            raise BadInput(f"{path}: pass `eq` or `exists` beside the key.", "filter")
        return clause

    return Key(clause)


def _study(compiler: Compiler, given: StudyFilter, path: str, about: Name) -> Clause:
    """A filter of the study that a run names, else of the first that lists it: see `RunEntity.study`."""
    studies, links = compiler.model.studies, compiler.model.study_runs
    of_study, predicate = compiler.apart(given, path, (*about, "study"))
    matches = _remembered(predicate.matches, compiler.model.annotations)

    def test(run: RunModel) -> bool:
        study = None if run.study_id is None else studies.records.get(run.study_id)
        if study is None:
            owners = links.owners_of(run.id)
            if not owners:
                return False
            study = studies.records[owners[0]]
        return matches(study)

    formula = All((fact(*about, "study"), of_study.formula))
    found = _members(studies, predicate, links)
    return Clause(f"{compiler.bind(test)}(record)", formula, found, of_study.terms)


def _worker(compiler: Compiler, given: LogicalWorkerFilter, path: str, about: Name) -> Clause:
    workers, links = compiler.model.logical_workers, compiler.model.worker_runs
    of_worker, predicate = compiler.apart(given, path, (*about, "worker"))
    matches = _remembered(predicate.matches, compiler.model.annotations)

    def test(run: RunModel) -> bool:
        for ids in (run.workers, links.one_sided_of(run.id)):
            for id_ in ids:
                worker = workers.records.get(id_)
                if worker is not None and matches(worker):
                    return True
        return False

    formula = Exists((*about, "worker"), of_worker.formula, partial(repr, given))
    found = _members(workers, predicate, links)
    return Clause(f"{compiler.bind(test)}(record)", formula, found, of_worker.terms)


def _members(owners: Table[Any], predicate: Predicate, links: Links[Any, Any]) -> Candidates:
    everyone = OrderedView(owners.order, owners.records, owners.records, "", whole=True)
    return lambda: [found for _, id_ in everyone.where(predicate).positions if (found := links.members_of(id_))]


def _remembered(matches: Callable[[Any], bool], annotations: Mapping[str, str]) -> Callable[[Any], bool]:
    """Remembers verdicts by record: a record is never changed, but replaced by another, and so are its annotations."""
    verdicts: dict[str, tuple[Any, str | None, bool]] = {}

    def test(record: Any) -> bool:
        known = verdicts.get(record.id)
        noted = annotations.get(record.id)
        if known is None or known[0] is not record or known[1] is not noted:
            known = verdicts[record.id] = record, noted, matches(record)
        return known[2]

    return test


def _heartbeat(compiler: Compiler, about: Name) -> Times:
    source = "record.heartbeat_timestamp"
    instant = compiler.bind(compiler.entity_context.instant)

    def compared(sign: str, bound: datetime) -> tuple[str, None]:
        return f"({source} is not None and {instant}({source}) {sign} {compiler.bind(bound)})", None

    return Times(Measure((*about, "heartbeatAt"), nullable=True), compared, f"{source} is None")


def _launched(compiler: Compiler, about: Name) -> Times:
    """Compares the seconds that runs are ordered by: the time zone matters only within a day of the bound."""
    order = compiler.model.runs.order
    value = f"{compiler.bind(compiler.model.runs.positions)}[record.id][0]"  # minus the seconds; positive without any
    entity_context = compiler.entity_context

    def compared(sign: str, bound: datetime) -> tuple[str, Candidates]:
        nearby = since_epoch(bound) // timedelta(seconds=1)
        early, late = compiler.bind(-(nearby - _DAY)), compiler.bind(-(nearby + _DAY))
        exactly = compiler.bind(lambda run: entity_context.instant(run.launched_at))
        exact = f"{late} <= value <= {early} and {exactly}(record) {sign} {compiler.bind(bound)}"
        surely = f"value > {early}" if sign == "<" else f"value < {late}"
        first, stop = (-(nearby + _DAY), 1) if sign == "<" else (None, -(nearby - _DAY) + 1)
        return f"((value := {value}) <= 0 and ({surely} or {exact}))", partial(_between, order, first, stop)

    return Times(Measure((*about, "launchedAt"), nullable=True), compared, f"{value} > 0")


def _between(order: Sequence[SortKey], first: int | None, stop: int) -> Parts:
    """The runs whose order values are at least `first` and below `stop`."""
    start = 0 if first is None else bisect_left(order, (first, ""))
    return [order[start : bisect_left(order, (stop, ""))]]


def _is_finished(compiler: Compiler, wanted: bool, path: str, about: Name) -> Clause:
    statuses = [one for one in RunStatus if one.is_finished is wanted]
    return status_in(compiler, statuses, path, _run_status(compiler, about))


def _is_stuck(compiler: Compiler, wanted: bool, _path: str, about: Name) -> Clause:
    observations, table = compiler.entity_context.observations, compiler.model.runs

    def find() -> Parts:
        return [[table.position(run)] for id_ in observations.stuck if (run := table.get(id_)) is not None]

    source = f"({compiler.bind(observations.is_stuck)}(record) is {wanted})"
    formula = Atom(Choice((*about, "isStuck"), (None, False, True)), lambda value: value is wanted)
    return Clause(source, formula, find if wanted else None)


# --- the tables

_STUDIES: Callable[[ReadModel], Table[Any]] = attrgetter("studies")
_RUNS: Callable[[ReadModel], Table[Any]] = attrgetter("runs")
_LOGICAL_WORKERS: Callable[[ReadModel], Table[Any]] = attrgetter("logical_workers")
_PHYSICAL_WORKERS: Callable[[ReadModel], Table[Any]] = attrgetter("physical_workers")
_NESTED = {"and_": Key(_and), "or_": Key(_or), "not_": Key(_not)}

KEYS: Keys = {
    StudyFilter: {
        **_NESTED,
        "id": _id(_STUDIES),
        "name": _text("name", _STUDIES),
        "has_runs": _has_runs(attrgetter("study_runs")),
        "annotation": _annotation(_STUDIES),
    },
    LogicalWorkerFilter: {
        **_NESTED,
        "id": _id(_LOGICAL_WORKERS),
        "name": _text("name"),
        "queues": _list("queues"),
        "has_runs": _has_runs(attrgetter("worker_runs")),
    },
    PhysicalWorkerFilter: {
        **_NESTED,
        "id": _id(_PHYSICAL_WORKERS),
        "name": _text("name", _PHYSICAL_WORKERS),
        "host": _text("host", nullable=True),
        "status": _about(_worker_status),
        "logical_worker_id": _reference("logical_worker_id", _LOGICAL_WORKERS, attrgetter("instances")),
        "heartbeat_at": _about(_heartbeat),
        "restart_count": _number("restart_count"),
    },
    RunFilter: {
        **_NESTED,
        "id": _id(_RUNS),
        "workspace": _text("workspace", _RUNS),
        "status": _about(_run_status),
        "is_finished": Key(_is_finished),
        "is_stuck": Key(_is_stuck),
        "queues": _list("queues"),
        "study_id": _reference("study_id", _STUDIES, attrgetter("study_runs")),
        "study": Key(_study),
        "worker_ids": _reference("workers", _LOGICAL_WORKERS, attrgetter("worker_runs")),
        "worker": Key(_worker),
        "launched_at": _about(_launched),
        "annotation": _annotation(_RUNS),
    },
    **VALUE_KEYS,
}
check_keys(KEYS)
