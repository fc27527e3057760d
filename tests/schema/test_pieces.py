"""Answers made of pieces that were kept: whatever changes in between, they are those of graphql-core, to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schema.compiler.accessors import Attribute, accessor_of
from schema.context import Context
from schema.engine import Engine
from schema.entity_pieces import ENTITY_PIECES
from schema.roles import Role
from schema.scopes import SCOPES
from server.database import pieces as module
from server.database import read_model
from server.database.backends.memory import MemoryBackend
from server.database.backends.notes import Note, NoteKey, NoteKind
from server.database.merlin_database import MerlinDatabase
from server.database.models import KINDS, EntityKind, Entry, Key, Model, with_value
from server.database.pieces import Pieces
from tests.support.compiler import SCHEMA, UNLIMITED, answer
from tests.support.documents import ASYNCHRONOUS
from tests.support.read_models import IDS, ONE_BY_ONE, WHOLESALE, records
from tests.support.records import logical_worker, run, study, uid

DELETED = -4
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
ROOTS = {"Study": "studies", "Run": "runs", "LogicalWorker": "logicalWorkers", "PhysicalWorker": "physicalWorkers"}
NODES = "{ runs { nodes { id status study { id name } workers { id name queues } } } }"

kinds = st.sampled_from(list(IDS))
changes = kinds.flatmap(lambda kind: st.tuples(records[kind], st.integers(-4, 11)))
"""A record, and what is done with it: it is deleted, stored as a whole, or one of its fields is."""
notes = st.tuples(
    st.builds(NoteKey, st.just(NoteKind.ANNOTATIONS), kinds.flatmap(lambda kind: st.sampled_from(IDS[kind]))),
    st.sampled_from([None, '{"a": 1}', '{"a": 2}']),
)
batches = st.tuples(st.lists(changes, max_size=4), st.lists(notes, max_size=2))


def fields_of(type_: str, random: Random, depth: int = 0) -> str:
    """Some fields of an entity: mostly such that have pieces, with other names here and there."""
    names = [one.partition(".")[2] for one in sorted(ENTITY_PIECES.own) if one.startswith(f"{type_}.")]
    chosen = [f"x{number}: {name}" if random.random() < 0.1 else name for number, name in enumerate(names)]
    parts = random.sample(chosen, random.randint(1, len(chosen)))
    for link, target in (
        ("Run.study", "Study"),
        ("Run.workers", "LogicalWorker"),
        ("PhysicalWorker.logicalWorker", "LogicalWorker"),
    ):
        if link.startswith(f"{type_}.") and random.random() < 0.8:
            parts.append(f"{link.partition('.')[2]} {{ __typename {fields_of(target, random, depth + 1)} }}")
    if depth < 2 and random.random() < 0.2:
        other = {"Study": "runs", "LogicalWorker": "runs", "Run": "parent", "PhysicalWorker": "isAlive"}[type_]
        inner = fields_of("Run", random, depth + 1)
        parts.append({"runs": f"runs {{ nodes {{ {inner} }} }}", "parent": f"parent {{ {inner} }}"}.get(other, other))
    return " ".join(parts)


class World:
    """A database whose copy is changed directly, and two servers of it."""

    def __init__(self) -> None:
        self.database = MerlinDatabase(MemoryBackend(), "1", UTC)
        self.context = Context(self.database, "1", Role.ADMIN)
        self.plain = Engine(SCHEMA, UNLIMITED, compiled=False)
        self.compiled = Engine(SCHEMA, UNLIMITED)

    @property
    def pieces(self) -> Pieces:
        return self.database.entity_context.pieces

    def apply(self, changes: Sequence[tuple[Model, int]], notes: Sequence[Note] = ()) -> None:
        model = self.database.read_model
        model.apply([self._entry(*change) for change in changes], notes)

    def _entry(self, record: Model, action: int) -> Entry:
        key = Key(KINDS[type(record)], record.id)
        if action == DELETED:
            return Entry(key, None)
        known, names = self.database.read_model.get(key), [field.name for field in fields(record)]
        if known is None or not 0 < action < len(names):
            return Entry(key, record)
        return Entry(key, with_value(known, names[action], getattr(record, names[action])))

    def ask(self, text: str, *, engine: Engine | None = None) -> object:
        engine = engine or self.compiled
        return asyncio.run(answer(engine, engine.parse(text), {}, self.context))

    def compare(self, texts: Sequence[str]) -> None:
        for text in texts:
            assert self.ask(text) == self.ask(text, engine=self.plain), text


@pytest.fixture(params=[ONE_BY_ONE, WHOLESALE], ids=["one by one", "wholesale"])
def share(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Of the records that change at once, from which on the copy builds its indexes anew."""
    monkeypatch.setattr(read_model, "_WHOLESALE", request.param)
    return float(request.param)


@settings(SLOW, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(batches, min_size=1, max_size=20), st.randoms(use_true_random=False, note_method_calls=False))
def test_whatever_changes_in_between(share: float, batches: Sequence[Any], random: Random) -> None:
    """After each of some changes, queries that were asked before are answered as by graphql-core."""
    world = World()
    texts = [
        f"{{ {ROOTS[type_]} {{ nodes {{ {fields_of(type_, random)} }} }} }}" for type_ in random.choices([*ROOTS], k=3)
    ]
    for batch in batches:
        world.apply(*batch)
        for _ in range(random.choice([1, 1, 2])):
            world.compare(texts)


# What is kept, and what is not


def world_of(*records: Model) -> World:
    world = World()
    world.apply([(record, 0) for record in records])
    return world


def hot(world: World, text: str) -> int:
    """Asks until every entity has its piece; returns the bytes."""
    for _ in range(3):
        world.compare([text])
    return world.pieces.size


def test_a_run_that_comes_leaves_the_pieces_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its study and its worker list it, which changes their records, but nothing that the other runs say of them."""
    monkeypatch.setattr(read_model, "_WHOLESALE", ONE_BY_ONE)
    worker = logical_worker("w")
    known = [run(number, study_id=uid(1), workers=(worker.id,)) for number in (11, 12)]
    world = world_of(study(1, runs=(uid(11), uid(12))), worker, *known)
    before = hot(world, NODES)
    (pieces,) = (some for some in world.pieces._selections.values() if some.selection.kind is EntityKind.RUN)
    kept = dict(pieces)
    assert {*kept} == {uid(11), uid(12)}
    assert all(kept.values())
    world.apply([(run(13, study_id=uid(1), workers=(worker.id,)), 0)])
    world.apply([(study(1, runs=(uid(11), uid(12), uid(13))), 0), (logical_worker("w", runs=(uid(13),)), 0)])
    assert hot(world, NODES) > before
    assert {id_: pieces[id_] for id_ in kept} == kept


def test_a_change_of_what_runs_show_of_their_study_reaches_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its runs are too many to be told one by one."""
    monkeypatch.setattr(read_model, "_WHOLESALE", ONE_BY_ONE)
    for most in (0, 500):
        monkeypatch.setattr(module, "MAX_MEMBERS", most)
        world = world_of(study(1), *(run(number, study_id=uid(1)) for number in (11, 12)))
        hot(world, NODES)
        world.apply([(study(1, "renamed"), 0)])
        hot(world, NODES)


def test_a_study_that_lists_a_run_is_shown_by_it(share: float) -> None:
    """Though the run does not name it, and the study's own piece stays as it is."""
    world = world_of(study(1), study(2), run(11), run(12))
    for runs in ((), (uid(11),), (uid(11), uid(12)), (uid(12),), ()):
        world.apply([(study(1, runs=runs), 0)])
        hot(world, NODES)


def test_more_changes_than_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that were used lately catch up, all others are dropped."""
    monkeypatch.setattr(read_model, "_WHOLESALE", ONE_BY_ONE)
    monkeypatch.setattr(module, "MAX_NOTED", 3)
    world = world_of(study(1), *(run(number, study_id=uid(1)) for number in range(11, 20)))
    texts = [NODES, "{ runs { nodes { id workspace } } }"]
    for number in range(40):
        hot(world, texts[number % 7 == 0])
        world.apply([(run(11 + number % 9, f"/moved_{number}", study_id=uid(1)), 0)])
        assert world.pieces.size == sum(some.size for some in world.pieces._selections.values()) >= 0


def test_pieces_take_no_more_bytes_than_they_may() -> None:
    """The selections that were used longest ago lose theirs, and answers stay what they were."""
    world = world_of(study(1), *(run(number, study_id=uid(1)) for number in range(11, 40)))
    world.pieces.max_bytes = 10_000
    for number in range(30):
        hot(world, f"{{ runs {{ nodes {{ id x{number % 5}: workspace study {{ id name }} }} }} }}")
        assert world.pieces.size <= 10_000
        assert world.pieces.size == sum(some.size for some in world.pieces._selections.values()) >= 0


@pytest.mark.parametrize(
    "value",
    [
        '{"a": 123456789012345678901234567890}',
        '{"a": NaN, "b": 1e300}',
        "[" * 190 + '"ü"' + "]" * 190,
        '{"ü": "\\ud800"}',
    ],
    ids=["large", "not a number", "deep", "surrogate"],
)
def test_values_that_are_encoded_in_a_way_of_their_own(value: str) -> None:
    """They decide how the response as a whole is encoded, so it is the same whether or not others are pieces."""
    world = world_of(study(1, "ü"), study(2, "ö", additional_data=value), run(11, "/ü", study_id=uid(2)))
    for text in (
        "{ studies { nodes { id name additionalData } } }",
        "{ runs { nodes { id workspace study { id name additionalData } } } studies { nodes { id name } } }",
    ):
        hot(world, text)


def test_annotations_belong_to_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study and a run may have the same id; then both show annotations that come with a change of one of them."""
    monkeypatch.setattr(read_model, "_WHOLESALE", ONE_BY_ONE)
    world = world_of(study(1), run(1), run(2, study_id=uid(1)))
    text = "{ runs { nodes { id annotations study { id annotations } } } studies { nodes { id annotations } } }"
    hot(world, text)
    world.apply([(run(1, "/moved"), 0)], [Note(NoteKey(NoteKind.ANNOTATIONS, uid(1)), '{"a": 1}')])
    hot(world, text)


WITHOUT = {
    "Study": {"latestRun"},
    "Run": {
        *("parent", "child"),
        *("startedAt", "finishedAt", "duration", "statusHistory"),
        *("isStuck", "hasFailed"),
    },
    "LogicalWorker": set(),
    "PhysicalWorker": {
        *("isAlive", "lastSeenAt", "livePid", "activeTasks", "processedTasks", "loadAverage"),
        "heartbeatAge",
    },
}
"""Fields that depend on other runs, on histories, on what the server observes, or on the clock."""


@pytest.mark.parametrize("name", ROOTS)
def test_it_is_decided_of_each_field_whether_pieces_may_show_it(name: str) -> None:
    """A new field that is read as an attribute has to be added to one of both lists."""
    fields = SCHEMA._schema.type_map[name].fields  # type: ignore[attr-defined]
    fields = {field: fields[field] for field in fields if field not in ASYNCHRONOUS}
    read = {field for field in fields if isinstance(accessor_of(field, fields[field]), Attribute)}
    allowed = {
        one.partition(".")[2] for one in {*ENTITY_PIECES.own, *ENTITY_PIECES.links} if one.startswith(f"{name}.")
    }
    assert allowed | WITHOUT[name] == read
    assert not allowed & WITHOUT[name]
    assert not {f"{name}.{field}" for field in allowed} & {*SCOPES}
