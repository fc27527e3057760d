"""The keys of the filters of entities: a table for each filter says how a key is compiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter, gt, lt
from typing import Any

from schema.certainty import All, Atom, Choice, Exists, Fact, Measure, Some, Text, fact
from schema.clauses import EVERYTHING, Clause, Predicate, RowsOf, all_of, none_of, one_of
from schema.errors import BadInput
from schema.filter_compiler import Compiler, Key, Keys, Name, check_keys
from schema.filters import (
    AnnotationFilter,
    Filter,
    LogicalWorkerFilter,
    ParameterFilter,
    PhysicalWorkerFilter,
    RunFilter,
    StringFilter,
    StudyFilter,
    TaskFilter,
)
from schema.scalars import id_of
from schema.value_keys import VALUE_KEYS, Entry, Find, Times, Values, status_in
from server.database.default_order import EPOCH, since_epoch
from server.database.indexed_view import IndexedView
from server.database.json_text import EMPTY, read_json
from server.database.links import Links
from server.database.models import RunModel, RunStatus, WorkerStatus
from server.database.read_model import ReadModel
from server.database.row_index import DEFAULT, RowIndex
from server.database.rows import Rows
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, batched
from server.database.table import Table
from server.database.workspaces import TaskStatus

_DAY = 86_400
_TO_1970 = datetime(1970, 1, 1) - EPOCH  # noqa: DTZ001 - as EPOCH
_MILLISECOND = timedelta(milliseconds=1)


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
        return Values("record.id", Text((*about, "id"), nullable=False), _with_ids, _stored(table))

    return _about(field)


def _with_ids(ids: Iterable[Any], index: RowIndex) -> Rows:
    return index.rows(ids)


def _with_values(field: str) -> Find:
    return lambda values, index: index.by(field).any_of(values)


def _stored(table: Table[Any]) -> Callable[[str], str]:
    """The function that gives an id the spelling that it has in the database."""
    capitals = table.capitals

    def spelled(text: str) -> str:
        id_ = id_of(text)
        return capitals.get(id_, id_)

    return spelled


def _reference(name: str, table_of: Callable[[ReadModel], Table[Any]]) -> Key:
    """The id of another entity, or a list of ids."""

    def field(compiler: Compiler, about: Name) -> Values:
        subject, stored = Text((*about, name), nullable=True), _stored(table_of(compiler.model))
        return Values(f"record.{name}", subject, _with_values(name), stored)

    return _about(field)


def _text(name: str, table_of: Callable[[ReadModel], Table[Any]] | None = None) -> Key:
    """A text that every record has. `table_of` gives the table that finds records by it, where there is one."""

    def field(compiler: Compiler, about: Name) -> Values:
        table = None if table_of is None else table_of(compiler.model)

        def find(names: Iterable[str | None], index: RowIndex) -> Rows:
            if table is None:
                return index.by(name).any_of(names)
            return index.rows(id_ for one in names if one is not None for id_ in table.ids_named(one))

        return Values(f"record.{name}", Text((*about, name), nullable=False), find, column=name)

    return _about(field)


def _text_or_null(name: str) -> Key:
    def field(_compiler: Compiler, about: Name) -> Values:
        return Values(f"record.{name}", Text((*about, name), nullable=True), _with_values(name))

    return _about(field)


def _list(name: str) -> Key:
    """A list of texts."""
    return _about(lambda _compiler, about: Values(f"record.{name}", Fact((*about, name)), _with_values(name)))


def _number(name: str) -> Key:
    """A whole number, which every record has."""
    return _about(lambda _compiler, about: Values(f"record.{name}", Measure((*about, name), nullable=False)))


def _number_or_null(name: str) -> Key:
    """A whole number; null is neither equal to any, nor less, nor more: as NaN is."""

    def field(compiler: Compiler, about: Name) -> Values:
        source = f"({compiler.bind(math.nan)} if record.{name} is None else record.{name})"
        return Values(source, Measure((*about, name), nullable=True))

    return _about(field)


def _run_status(_compiler: Compiler, about: Name) -> Values:
    subject = Choice((*about, "status"), tuple(RunStatus))
    return Values("record.run_status", subject, _with_values("run_status"))


def _worker_status(_compiler: Compiler, about: Name) -> Values:
    subject = Choice((*about, "status"), tuple(WorkerStatus))
    return Values("record.worker_status", subject, _with_values("worker_status"))


def _task_status(_compiler: Compiler, about: Name) -> Values:
    return Values("record.status", Choice((*about, "status"), tuple(TaskStatus)))


def _has_runs(links_of: Callable[[ReadModel], Links[Any, Any]]) -> Key:
    def clause(compiler: Compiler, wanted: bool, _path: str, about: Name) -> Clause:
        members = compiler.bind(links_of(compiler.model).members_of)
        clause = Clause(f"({members}(record.id) != ())", fact(*about, "hasRuns"))
        return clause if wanted else none_of(clause)

    return Key(clause)


def _entry(entry_of: Callable[[Compiler, str, Name], Entry]) -> Key:
    """A value by its key, such as an annotation."""

    def clause(compiler: Compiler, given: AnnotationFilter | ParameterFilter, path: str, about: Name) -> Clause:
        clause = compiler.clause(given, path, entry_of(compiler, given.key, about))
        if clause is EVERYTHING:
            raise BadInput(f"{path}: pass `eq` or `exists` beside the key.", "filter")
        return clause

    return Key(clause)


def _annotation(compiler: Compiler, key: str, about: Name) -> Entry:
    annotations = compiler.model.annotations
    text = f"{compiler.bind(annotations.get)}(record.id, {compiler.bind(EMPTY)})"
    values = f"{compiler.bind(read_json)}({text})"
    return Entry("annotation", key, (*about, "annotation", key), values, lambda index: index.rows(annotations))


def _parameter(compiler: Compiler, key: str, about: Name) -> Entry:
    values = f"(record.parameters or {compiler.bind({})})"
    return Entry("parameter", key, (*about, "parameter", key), values, nullable=True)


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
    rows = partial(_linked, studies, predicate, links, "study_id", test)
    return Clause(f"{compiler.bind(test)}(record)", formula, rows, terms=of_study.terms)


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
    rows = partial(_linked, workers, predicate, links, "workers", test)
    return Clause(f"{compiler.bind(test)}(record)", formula, rows, terms=of_worker.terms)


def _linked(
    owners: Table[Any],
    predicate: Predicate,
    links: Links[Any, Any],
    field: str,
    test: Callable[[Any], bool],
    index: RowIndex,
) -> Rows:
    """The rows of the records that name a matching owner in a field; those that an owner only lists are tested."""
    everyone = IndexedView(owners.order, owners.records, owners.records, "", owners.index)
    named = index.by(field).any_of(everyone.where(predicate).ids)
    listed = index.rows(links.one_sided())
    if not listed:
        return named
    return (named - listed) | Rows([row for row in listed if test(index.record(row))])


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
    value = f"{compiler.bind(compiler.model.runs.positions)}[record.id][0]"  # minus the seconds; positive without any
    entity_context = compiler.entity_context

    def compared(sign: str, bound: datetime) -> tuple[str, RowsOf]:
        nearby = since_epoch(bound) // timedelta(seconds=1)
        early, late = compiler.bind(-(nearby - _DAY)), compiler.bind(-(nearby + _DAY))
        exactly = compiler.bind(lambda run: entity_context.instant(run.launched_at))
        exact = f"{late} <= value <= {early} and {exactly}(record) {sign} {compiler.bind(bound)}"
        surely = f"value > {early}" if sign == "<" else f"value < {late}"
        source = f"((value := {value}) <= 0 and ({surely} or {exact}))"
        low, high = (-(nearby - _DAY) + 1, 1) if sign == "<" else (-math.inf, -(nearby + _DAY))
        is_so = lt if sign == "<" else gt

        def rows(index: RowIndex) -> Rows:
            order = index.order(DEFAULT, index.default_value)
            found: list[int] = []
            for some in batched(order.between(-(nearby + _DAY), -(nearby - _DAY) + 1), RECORDS_PER_STEP):
                times = ((row, entity_context.instant(index.record(row).launched_at)) for row in some)
                found += [row for row, at in times if at is not None and is_so(at, bound)]
                give_way()
            return order.between(low, high) | Rows(found)

        return source, rows

    return Times(Measure((*about, "launchedAt"), nullable=True), compared, f"{value} > 0")


def _of_history(name: str, time: str) -> Key:
    """A time of the history of a run. `time` is an expression over `history` and `record`."""

    def times(compiler: Compiler, about: Name) -> Times:
        history = f"(history := {compiler.bind(compiler.model.histories.by_run.get)}(record.id))"

        def compared(sign: str, bound: datetime) -> tuple[str, None]:
            milliseconds = compiler.bind((since_epoch(bound) - _TO_1970) / _MILLISECOND)
            return f"({history} is not None and (value := {time}) is not None and value {sign} {milliseconds})", None

        return Times(Measure((*about, name), nullable=True), compared, f"{history} is None or {time} is None")

    return _about(times)


def _has_failed(compiler: Compiler, wanted: bool, path: str, about: Name) -> Clause:
    """As `EntityContext.has_failed`, without its calls: it is asked of each record."""
    histories, observations = compiler.model.histories, compiler.entity_context.observations
    history = f"(history := {compiler.bind(histories.by_run.get)}(record.id))"
    is_seen = f"({history} is not None and history.has_failed)"
    has_task = f"{compiler.bind(observations.has_failed_task)}(record.id)"
    failed = status_in(compiler, [RunStatus.FAILED], path, _run_status(compiler, about))
    source = f"({failed.source} or {is_seen} or {has_task})"

    def rows(index: RowIndex) -> Rows:
        now = index.by("run_status").of(RunStatus.FAILED)
        return now | index.rows(histories.failed) | index.rows(observations.with_failed_tasks())

    clause = Clause(source, Some((failed.formula, fact(*about, "hasFailed"))), rows)
    return clause if wanted else none_of(clause)


def _is_finished(compiler: Compiler, wanted: bool, path: str, about: Name) -> Clause:
    statuses = [one for one in RunStatus if one.is_finished is wanted]
    return status_in(compiler, statuses, path, _run_status(compiler, about))


def _is_stuck(compiler: Compiler, wanted: bool, _path: str, about: Name) -> Clause:
    observations = compiler.entity_context.observations
    source = f"({compiler.bind(observations.is_stuck)}(record) is {wanted})"
    clause = Clause(source, Atom(Choice((*about, "isStuck"), (None, False, True)), lambda value: value is wanted))
    return replace(clause, rows=lambda index: index.rows(observations.stuck), rest=clause) if wanted else clause


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
        "annotation": _entry(_annotation),
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
        "host": _text_or_null("host"),
        "status": _about(_worker_status),
        "logical_worker_id": _reference("logical_worker_id", _LOGICAL_WORKERS),
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
        "study_id": _reference("study_id", _STUDIES),
        "study": Key(_study),
        "worker_ids": _reference("workers", _LOGICAL_WORKERS),
        "worker": Key(_worker),
        "launched_at": _about(_launched),
        "started_at": _of_history("startedAt", "history.started"),
        "finished_at": _of_history("finishedAt", "(history.finished if history.last is record.run_status else None)"),
        "has_failed": Key(_has_failed),
        "annotation": _entry(_annotation),
    },
    TaskFilter: {
        **_NESTED,
        "step": _text("step"),
        "path": _text("path"),
        "status": _about(_task_status),
        "return_code": _text_or_null("return_code"),
        "workers": _list("workers"),
        "restarts": _number_or_null("restarts"),
        "sample_index": _number_or_null("sample_index"),
        "parameter": _entry(_parameter),
    },
    **VALUE_KEYS,
}
check_keys(KEYS)
