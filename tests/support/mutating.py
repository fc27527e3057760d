"""Every mutation of the schema with whatever it can be given, found by looking at the schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    Undefined,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_non_null_type,
    is_required_input_field,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from schema.build import make_schema
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, name_of
from tests.support.asking import execute

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
_SCHEMA = make_schema()._schema
assert _SCHEMA.mutation_type is not None
_FIELDS = _SCHEMA.mutation_type.fields
MUTATIONS: Sequence[str] = sorted(_FIELDS)
RARE = ("deleteAll", "deleteEverything")
"""They leave little to do for those that come after them."""

KINDS: Mapping[str, EntityKind] = {
    "physicalworker": EntityKind.PHYSICAL_WORKER,
    "logicalworker": EntityKind.LOGICAL_WORKER,
    "worker": EntityKind.LOGICAL_WORKER,
    "study": EntityKind.STUDY,
    "run": EntityKind.RUN,
    "parent": EntityKind.RUN,
    "child": EntityKind.RUN,
}
"""What kind of entity a field or a mutation of that name is about."""
WAYS = (("id",), ("workspace",), ("name", "queues"), ("name",), ("by",))
"""How one entity is named, where it may be named in several ways and has to be in one."""
FORCE = "force"
DECIDED = {"dryRun": False, "confirm": True}
"""Fields that say whether anything happens at all."""

TEXTS = ["new", "grüße 世界", "a b", "%h", "-1", "x" * 300, 'it\'s "quoted"\n', "Ⅷ", "²", "1e400", "$(HOME)", "a[/b]"]
"""Merlin takes some for numbers, and what it shows in a table for markup."""
NUMBERS = ["4242", "0", "٣", "9" * 400]
INSTANTS = ["2026-01-01T00:00:00Z", "2026-07-04T01:02:03.000456+02:00", "1970-01-01T00:00:00Z", "9999-12-30T00:00:00Z"]
DOCUMENTS: list[Any] = [
    {"note": 1},
    {},
    {"note": None, "deep": [{"a": [True, 1.5, "ü"]}]},
    {"1": "2024-01-01", "null": "null"},
    {"__set__": [1]},  # Merlin's own way of writing a set
    {"__set__": 1},
]
NOBODY = "00000000-0000-4000-8000-000000000000"
DEPTH = 2
"""So deep are filters nested."""


@dataclass
class Known:
    """What there is to be named, or was."""

    studies: Path
    """The directory of all workspaces."""
    ids: dict[EntityKind, list[str]] = field(default_factory=lambda: {kind: [] for kind in EntityKind})
    names: dict[EntityKind, list[str]] = field(default_factory=lambda: {kind: [] for kind in EntityKind})
    workers: list[dict[str, Any]] = field(default_factory=list)
    """Name and queues of logical workers."""

    def learn(self, database: MerlinDatabase) -> None:
        """In an order that is the same each time, though ids and Redis' order are not."""
        for kind in EntityKind:
            records = [it for it in database.read_model.tables[kind].records.values() if it.id not in self.ids[kind]]
            for record in sorted(records, key=lambda record: (name_of(record) or record.name, record.id)):
                self.ids[kind].append(record.id)
                self.names[kind].append(name_of(record) or record.name)
                if kind is EntityKind.LOGICAL_WORKER:
                    self.workers.append({"name": record.name, "queues": list(record.queues)})


@dataclass(frozen=True)
class Step:
    """One mutation."""

    mutation: str
    input: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.mutation}(input: {self.input})"


def can_be_forced(mutation: str) -> bool:
    return FORCE in _input(mutation).fields


async def perform(database: MerlinDatabase, step: Step) -> list[str]:
    """Its refusals; none where it was done."""
    document = f"""mutation ($input: {_input(step.mutation).name}!) {{
        {step.mutation}(input: $input) {{ userErrors {{ code message }} }} }}"""
    result = await execute(database, document, {"input": step.input})
    assert result.errors == [], str(step)
    return [f"{error['code']}: {error['message']}" for error in result.data[step.mutation]["userErrors"]]


def steps(known: Known) -> st.SearchStrategy[Step]:
    """Any mutation, with any input."""
    often = [name for name in MUTATIONS if name not in RARE]
    names = st.sampled_from([*often, *often, *RARE])
    return names.flatmap(lambda name: st.builds(Step, st.just(name), _inputs(name, known)))


def each(mutation: str, known: Known) -> Iterator[Step]:
    """With its defaults, with every choice that has one, and with all that can be given; named in each way.

    Choices are made one at a time, and all that with and without `force`.
    """
    fields = _input(mutation).fields
    required = {
        name: _choices(item) or _candidates(item.type, name, mutation, known)[:1]
        for name, item in fields.items()
        if is_required_input_field(item)
    }
    decided = {name: value for name, value in DECIDED.items() if name in fields}
    choices = [
        {name: value}
        for name, item in fields.items()
        if name not in (*required, *decided, FORCE) and item.default_value is not Undefined
        for value in _choices(item)
    ]
    rest = {
        name: _candidates(item.type, name, mutation, known)[name.endswith("Id")]  # the first is what it is about
        for name, item in fields.items()
        if name not in required and item.default_value is Undefined
    }
    forces = [{}, {FORCE: True}] if FORCE in fields else [{}]
    for way in _ways(fields) or [()]:
        named = _named(way, mutation, known)[0] | decided
        for force, values in product(forces, product(*required.values())):
            given = named | dict(zip(required, values, strict=True)) | force
            for chosen in ({}, *choices, *([rest] if rest else [])):
                yield Step(mutation, given | chosen)


def _input(mutation: str) -> GraphQLInputObjectType:
    arguments = _FIELDS[mutation].args
    assert list(arguments) == ["input"], mutation
    type_ = get_named_type(arguments["input"].type)
    assert isinstance(type_, GraphQLInputObjectType)
    return type_


def _inputs(mutation: str, known: Known) -> st.SearchStrategy[dict[str, Any]]:
    fields = _input(mutation).fields
    ways = _ways(fields)
    naming = {name for way in ways for name in way}
    values = {name: _values(item.type, name, mutation, known) for name, item in fields.items() if name not in naming}
    decided = {name: st.just(value) for name, value in DECIDED.items() if name in fields}
    needed = {name: value for name, value in values.items() if is_required_input_field(fields[name])} | decided
    rest = st.fixed_dictionaries(needed, optional={name: it for name, it in values.items() if name not in needed})
    named = st.sampled_from([name for way in ways for name in _named(way, mutation, known)] or [{}])
    return st.builds(lambda one, other: one | other, named, rest)


def _ways(fields: Mapping[str, GraphQLInputField]) -> list[tuple[str, ...]]:
    def offered(name: str) -> bool:
        return name in fields and not is_required_input_field(fields[name])

    ways = [way for way in WAYS if all(map(offered, way))]
    return [way for way in ways if not any(set(way) < set(other) for other in ways)]


def _named(way: tuple[str, ...], mutation: str, known: Known) -> list[dict[str, Any]]:
    """The entities that a mutation is about, as it can name them."""
    if way == ():
        return [{}]
    if way == ("name", "queues"):
        return known.workers or [{"name": "nobody", "queues": ["q"]}]
    (name,) = way
    return [{name: value} for value in _candidates(_input(mutation).fields[name].type, name, mutation, known)]


def _choices(item: GraphQLInputField) -> list[Any]:
    """All values of a type that has few; of a list each alone."""
    inner = get_named_type(item.type)
    values = sorted(inner.values) if isinstance(inner, GraphQLEnumType) else [True, False]
    if not isinstance(inner, GraphQLEnumType) and inner.name != "Boolean":
        return []
    return [[value] for value in values] if is_list_type(get_nullable_type(item.type)) else values


def _values(type_: GraphQLInputType, name: str, mutation: str, known: Known) -> st.SearchStrategy[Any]:
    inner: Any = get_nullable_type(type_)
    if is_list_type(inner):
        some = st.lists(st.sampled_from(_candidates(inner.of_type, name, mutation, known)), max_size=3)
    else:
        some = st.sampled_from(_candidates(inner, name, mutation, known))
    return some if is_non_null_type(type_) else some | st.none()


def _candidates(type_: GraphQLInputType, name: str, mutation: str, known: Known, depth: int = 0) -> list[Any]:
    """Values of a type, the likeliest first."""
    inner: Any = get_nullable_type(type_)
    if is_list_type(inner):
        return [[value] for value in _candidates(inner.of_type, name, mutation, known, depth)]
    if isinstance(inner, GraphQLEnumType):
        return sorted(inner.values)
    if isinstance(inner, GraphQLInputObjectType):
        if set(inner.fields) == {"name", "queues"}:
            return _named(("name", "queues"), mutation, known)
        return [
            {key: value}
            for key, item in inner.fields.items()
            if depth < DEPTH or not isinstance(get_named_type(item.type), GraphQLInputObjectType)
            for value in _candidates(item.type, name if depth else key, mutation, known, depth + 1)[:3]
        ]
    scalars: Mapping[str, Callable[[], list[Any]]] = {
        "ID": lambda: [*_ids(name, mutation, known), NOBODY],
        "String": lambda: _texts(name, mutation, known),
        "JSON": lambda: DOCUMENTS,
        "DateTime": lambda: INSTANTS,
        "Boolean": lambda: [True, False],
        "Int": lambda: [1, 0, 2**31 - 1],
    }
    return scalars[inner.name]()


def _ids(name: str, mutation: str, known: Known) -> list[str]:
    kind = _kind(name.removesuffix("s").removesuffix("Id")) or _kind(mutation)
    return [id_ for each, ids in known.ids.items() if kind in (None, each) for id_ in ids]


def _texts(name: str, mutation: str, known: Known) -> list[str]:
    if name == "workspace":
        unused = [str(known.studies / f"new_20270101-00000{number}") for number in range(3)]
        used = known.names[EntityKind.RUN]
        return [*unused, *used] if mutation.startswith("create") else [*used, *unused]
    if name == "queues":
        return [*dict.fromkeys(queue for worker in known.workers for queue in worker["queues"]), *TEXTS]
    if name in ("name", "studyName"):
        kind = _kind(name.removesuffix("Name")) or _kind(mutation)
        named = known.names[kind] if kind else []
        return [*TEXTS, *named] if mutation.startswith("create") and name == "name" else [*named, *TEXTS]
    return [*NUMBERS, *TEXTS] if name == "pid" else TEXTS


def _kind(name: str) -> EntityKind | None:
    return next((kind for ending, kind in KINDS.items() if name.lower().removesuffix("s").endswith(ending)), None)
