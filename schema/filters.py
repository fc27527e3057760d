"""The filters, and what they mean: each is compiled once to a plain predicate over entities.

Every given key must hold. A key that is left out says nothing; `eq: null` matches what is null; null anywhere else is
refused, since a client that means "no filter" leaves the key out. An empty list in `in` matches nothing, in `notIn`
everything; an empty filter matches everything. `notIn` and `not` match null, too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypeVar

import strawberry

from schema.enums import RunStatus, WorkerStatus
from schema.errors import BadInput
from server.database.entities import LogicalWorkerEntity, PhysicalWorkerEntity, RunEntity, StudyEntity
from server.database.ordered import Ordered

T = TypeVar("T")
Predicate: TypeAlias = Callable[[T], bool]

_AND = "All of these must hold."
_OR = "At least one of these must hold."
_NOT = "This must not hold."


@strawberry.input(description="Of an id.")
class IDFilter:
    eq: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Is this; null: is null.")
    in_: list[strawberry.ID] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Is one of these."
    )
    not_in: list[strawberry.ID] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Is null, or is not.")


@strawberry.input(description="Of a text.")
class StringFilter:
    eq: str | None = strawberry.field(default=strawberry.UNSET, description="Is this; null: is null.")
    in_: list[str] | None = strawberry.field(name="in", default=strawberry.UNSET, description="Is one of these.")
    not_in: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")
    contains: str | None = strawberry.field(default=strawberry.UNSET, description="Has this in it.")
    starts_with: str | None = strawberry.field(default=strawberry.UNSET, description="Begins with this.")
    ends_with: str | None = strawberry.field(default=strawberry.UNSET, description="Ends with this.")
    ignore_case: bool | None = strawberry.field(default=False, description="Upper and lower case are the same.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Is null, or is not.")


@strawberry.input(description="Of a list of texts.")
class StringListFilter:
    contains_any: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Holds at least one of these."
    )
    contains_all: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Holds all of these.")
    is_empty: bool | None = strawberry.field(default=strawberry.UNSET, description="Is empty, or is not.")


@strawberry.input(description="Of an instant.")
class DateTimeFilter:
    before: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is before this.")
    after: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is after this.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Is null, or is not.")


@strawberry.input(description="Of the status of a run.")
class RunStatusFilter:
    eq: RunStatus | None = strawberry.field(default=strawberry.UNSET, description="Is this.")
    in_: list[RunStatus] | None = strawberry.field(name="in", default=strawberry.UNSET, description="Is one of these.")
    not_in: list[RunStatus] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")


@strawberry.input(description="Of the status of a physical worker.")
class WorkerStatusFilter:
    eq: WorkerStatus | None = strawberry.field(default=strawberry.UNSET, description="Is this.")
    in_: list[WorkerStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Is one of these."
    )
    not_in: list[WorkerStatus] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")


@strawberry.input(description="Of a whole number.")
class IntFilter:
    eq: int | None = strawberry.field(default=strawberry.UNSET, description="Is this.")
    lt: int | None = strawberry.field(default=strawberry.UNSET, description="Is less than this.")
    lte: int | None = strawberry.field(default=strawberry.UNSET, description="Is this or less.")
    gt: int | None = strawberry.field(default=strawberry.UNSET, description="Is more than this.")
    gte: int | None = strawberry.field(default=strawberry.UNSET, description="Is this or more.")


@strawberry.input(description="Which studies: every given key must hold.")
class StudyFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    has_runs: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it has runs.")
    and_: list[StudyFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[StudyFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: StudyFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="Which logical workers: every given key must hold.")
class LogicalWorkerFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    queues: StringListFilter | None = strawberry.field(default=strawberry.UNSET, description="Its queues.")
    has_runs: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether runs use it.")
    and_: list[LogicalWorkerFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[LogicalWorkerFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: LogicalWorkerFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="Which runs: every given key must hold.")
class RunFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    workspace: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its workspace.")
    status: RunStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    is_finished: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it is finished.")
    queues: StringListFilter | None = strawberry.field(default=strawberry.UNSET, description="Its queues.")
    study_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The id of its study, as stored."
    )
    study: StudyFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Its study; a run without one matches no such filter."
    )
    worker_ids: StringListFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The ids of its logical workers, as stored."
    )
    worker: LogicalWorkerFilter | None = strawberry.field(
        default=strawberry.UNSET, description="At least one of its logical workers."
    )
    launched_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="When it was launched.")
    and_: list[RunFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[RunFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: RunFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="Which physical workers: every given key must hold.")
class PhysicalWorkerFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    host: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="The machine it runs on.")
    status: WorkerStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    logical_worker_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The id of its logical worker, as stored."
    )
    heartbeat_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="When it last gave a sign of life."
    )
    restart_count: IntFilter | None = strawberry.field(
        default=strawberry.UNSET, description="How often it was restarted."
    )
    and_: list[PhysicalWorkerFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[PhysicalWorkerFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: PhysicalWorkerFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


RunFilterArgument = Annotated[RunFilter | None, strawberry.argument(description="Only those that match.")]
StudyFilterArgument = Annotated[StudyFilter | None, strawberry.argument(description="Only those that match.")]
LogicalWorkerFilterArgument = Annotated[
    LogicalWorkerFilter | None, strawberry.argument(description="Only those that match.")
]
PhysicalWorkerFilterArgument = Annotated[
    PhysicalWorkerFilter | None, strawberry.argument(description="Only those that match.")
]


def matching(items: Ordered[Any], given: Any, compile_: Callable[[Any, str], Predicate[Any]]) -> Ordered[Any]:
    """Those that match a filter that a client gives, else all. Raises `BadInput`."""
    if given is None or given is strawberry.UNSET:
        return items
    predicate = compile_(given, "filter")  # refuses what can't be meant, also where nothing is left to test
    return items.where(predicate) if any(True for _ in _keys(given)) else items


def is_empty(given: Any) -> bool:
    """Whether a filter says nothing, at whatever depth: `{and: [{}]}` and `{status: {}}` say no more than `{}`."""
    return all(_says_nothing(name, value) for name, value in _keys(given))


def _says_nothing(name: str, value: Any) -> bool:
    match name, value:
        case "and_", list():
            return all(map(is_empty, value))
        case "or_", list():
            return any(map(is_empty, value))
        case "not_", _:
            return False
        case ("not_in" | "contains_all", []) | ("contains" | "starts_with" | "ends_with", ""):
            return True
        case _:
            return strawberry.types.has_object_definition(value) and is_empty(value)


def study_predicate(given: StudyFilter, path: str = "filter") -> Predicate[StudyEntity]:
    return _all(
        _nested(given, path, study_predicate)
        + _on(given, path, "id", _value_test, lambda study: study.id)
        + _on(given, path, "name", _text_test, lambda study: study.name)
        + _on(given, path, "has_runs", _flag_test, lambda study: len(study.runs) > 0)
    )


def logical_worker_predicate(given: LogicalWorkerFilter, path: str = "filter") -> Predicate[LogicalWorkerEntity]:
    return _all(
        _nested(given, path, logical_worker_predicate)
        + _on(given, path, "id", _value_test, lambda worker: worker.id)
        + _on(given, path, "name", _text_test, lambda worker: worker.name)
        + _on(given, path, "queues", _list_test, lambda worker: worker.queues)
        + _on(given, path, "has_runs", _flag_test, lambda worker: len(worker.runs) > 0)
    )


def run_predicate(given: RunFilter, path: str = "filter") -> Predicate[RunEntity]:
    """Raises `BadInput` for null where it means nothing."""
    return _all(
        _nested(given, path, run_predicate)
        + _on(given, path, "id", _value_test, lambda run: run.id)
        + _on(given, path, "workspace", _text_test, lambda run: run.workspace)
        + _on(given, path, "status", _value_test, lambda run: run.status)
        + _on(given, path, "is_finished", _flag_test, lambda run: run.is_finished)
        + _on(given, path, "queues", _list_test, lambda run: run.queues)
        + _on(given, path, "study_id", _value_test, lambda run: run.study_id)
        + _on(given, path, "study", _one_test(study_predicate), lambda run: run.study)
        + _on(given, path, "worker_ids", _list_test, lambda run: run.worker_ids)
        + _on(given, path, "worker", _any_test(logical_worker_predicate), lambda run: run.workers)
        + _on(given, path, "launched_at", _time_test, lambda run: run.launched_at)
    )


def physical_worker_predicate(given: PhysicalWorkerFilter, path: str = "filter") -> Predicate[PhysicalWorkerEntity]:
    """Raises `BadInput` for null where it means nothing."""
    return _all(
        _nested(given, path, physical_worker_predicate)
        + _on(given, path, "id", _value_test, lambda worker: worker.id)
        + _on(given, path, "name", _text_test, lambda worker: worker.name)
        + _on(given, path, "host", _text_test, lambda worker: worker.host)
        + _on(given, path, "status", _value_test, lambda worker: worker.status)
        + _on(given, path, "logical_worker_id", _value_test, lambda worker: worker.logical_worker_id)
        + _on(given, path, "heartbeat_at", _time_test, lambda worker: worker.heartbeat_at)
        + _on(given, path, "restart_count", _number_test, lambda worker: worker.restart_count)
    )


def _keys(given: Any) -> Iterable[tuple[str, Any]]:
    """What a filter says; `ignore_case` alone says nothing."""
    return (
        (name, value) for name, value in vars(given).items() if value is not strawberry.UNSET and name != "ignore_case"
    )


def _value(given: Any, name: str, path: str) -> Any:
    """UNSET where the key is left out. Raises `BadInput` for null."""
    value = getattr(given, name)
    if value is None:
        raise BadInput(f"{path}.{_graphql(name)}: null says nothing here; leave the key out.", "filter")
    return value


def _graphql(name: str) -> str:
    head, *rest = name.rstrip("_").split("_")
    return head + "".join(map(str.capitalize, rest))


def _on(
    given: Any, path: str, name: str, compile_: Callable[[Any, str], Predicate[Any]], read: Callable[[Any], Any]
) -> list[Predicate[Any]]:
    """The test of one key of a filter, on what it reads of an entity; none where the key is left out."""
    value = _value(given, name, path)
    if value is strawberry.UNSET:
        return []
    test = compile_(value, f"{path}.{_graphql(name)}")
    return [lambda entity: test(read(entity))]


def _nested(given: Any, path: str, compile_: Callable[[Any, str], Predicate[Any]]) -> list[Predicate[Any]]:
    tests: list[Predicate[Any]] = []
    if (every := _value(given, "and_", path)) is not strawberry.UNSET:
        tests += [compile_(one, f"{path}.and") for one in every]
    if (some := _value(given, "or_", path)) is not strawberry.UNSET:
        tests.append(_any([compile_(one, f"{path}.or") for one in some]))
    if (none := _value(given, "not_", path)) is not strawberry.UNSET:
        tests.append(_none(compile_(none, f"{path}.not")))
    return tests


def _all(tests: list[Predicate[Any]]) -> Predicate[Any]:
    match tests:
        case []:
            return lambda _: True
        case [test]:
            return test
        case _:
            return lambda entity: all(test(entity) for test in tests)


def _any(tests: list[Predicate[Any]]) -> Predicate[Any]:
    return lambda entity: any(test(entity) for test in tests)


def _none(test: Predicate[Any]) -> Predicate[Any]:
    return lambda entity: not test(entity)


def _flag_test(wanted: bool, _path: str) -> Predicate[bool]:
    return lambda value: value is wanted


def _one_test(compile_: Callable[[Any, str], Predicate[Any]]) -> Callable[[Any, str], Predicate[Any]]:
    def test_of(given: Any, path: str) -> Predicate[Any]:
        test = compile_(given, path)
        return lambda entity: entity is not None and test(entity)

    return test_of


def _any_test(compile_: Callable[[Any, str], Predicate[Any]]) -> Callable[[Any, str], Predicate[Any]]:
    def test_of(given: Any, path: str) -> Predicate[Any]:
        test = compile_(given, path)
        return lambda entities: any(map(test, entities))

    return test_of


def _value_test(given: Any, path: str) -> Predicate[Any]:
    """Of an id or an enum."""
    tests: list[Predicate[Any]] = []
    wanted = given.eq if hasattr(given, "is_null") else _value(given, "eq", path)
    if wanted is not strawberry.UNSET:
        tests.append(lambda value: value == wanted)
    if (some := _value(given, "in_", path)) is not strawberry.UNSET:
        among = frozenset(some)
        tests.append(lambda value: value in among)
    if (none := _value(given, "not_in", path)) is not strawberry.UNSET:
        unwanted = frozenset(none)
        tests.append(lambda value: value not in unwanted)
    return _all(tests + _null_test(given, path))


def _null_test(given: Any, path: str) -> list[Predicate[Any]]:
    wanted = _value(given, "is_null", path) if hasattr(given, "is_null") else strawberry.UNSET
    return [] if wanted is strawberry.UNSET else [lambda value: (value is None) is wanted]


def _text_test(given: StringFilter, path: str) -> Predicate[str | None]:
    fold: Callable[[str], str] = str.casefold if _value(given, "ignore_case", path) else str
    tests: list[Predicate[str | None]] = []
    if given.eq is None:
        tests.append(lambda text: text is None)
    elif given.eq is not strawberry.UNSET:
        wanted = fold(given.eq)
        tests.append(lambda text: text is not None and fold(text) == wanted)
    if (some := _value(given, "in_", path)) is not strawberry.UNSET:
        among = frozenset(map(fold, some))
        tests.append(lambda text: text is not None and fold(text) in among)
    if (none := _value(given, "not_in", path)) is not strawberry.UNSET:
        unwanted = frozenset(map(fold, none))
        tests.append(lambda text: text is None or fold(text) not in unwanted)
    for name, has in (("contains", str.__contains__), ("starts_with", str.startswith), ("ends_with", str.endswith)):
        if (part := _value(given, name, path)) is not strawberry.UNSET:
            tests.append(_part_test(fold, has, fold(part)))
    return _all(tests + _null_test(given, path))


def _part_test(fold: Callable[[str], str], has: Callable[[str, str], bool], part: str) -> Predicate[str | None]:
    return lambda text: text is not None and has(fold(text), part)


def _list_test(given: StringListFilter, path: str) -> Predicate[Iterable[str]]:
    tests: list[Predicate[Any]] = []
    if (some := _value(given, "contains_any", path)) is not strawberry.UNSET:
        among = frozenset(some)
        tests.append(lambda values: not among.isdisjoint(values))
    if (every := _value(given, "contains_all", path)) is not strawberry.UNSET:
        needed = frozenset(every)
        tests.append(needed.issubset)
    if (empty := _value(given, "is_empty", path)) is not strawberry.UNSET:
        tests.append(lambda values: (len(values) == 0) is empty)
    return _all(tests)


def _time_test(given: DateTimeFilter, path: str) -> Predicate[datetime | None]:
    tests: list[Predicate[Any]] = []
    if (before := _value(given, "before", path)) is not strawberry.UNSET:
        tests.append(lambda instant: instant is not None and instant < before)
    if (after := _value(given, "after", path)) is not strawberry.UNSET:
        tests.append(lambda instant: instant is not None and instant > after)
    return _all(tests + _null_test(given, path))


def _number_test(given: IntFilter, path: str) -> Predicate[int]:
    tests: list[Predicate[Any]] = []
    for name, holds in (
        ("eq", operator.eq),
        ("lt", operator.lt),
        ("lte", operator.le),
        ("gt", operator.gt),
        ("gte", operator.ge),
    ):
        if (bound := _value(given, name, path)) is not strawberry.UNSET:
            tests.append(_bound_test(holds, bound))
    return _all(tests)


def _bound_test(holds: Callable[[int, int], bool], bound: int) -> Predicate[int]:
    return lambda number: holds(number, bound)


def follows_links(given: RunFilter) -> bool:
    """Whether it looks at the study or the logical workers of a run."""
    return any(
        name in ("study", "worker")
        or (name in ("and_", "or_") and any(map(follows_links, value)))
        or (name == "not_" and follows_links(value))
        for name, value in _keys(given)
    )
