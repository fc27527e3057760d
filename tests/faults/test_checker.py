"""The checker of the fault suite finds planted faults, and accepts what may be."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

import httpx
import pytest

from server.database.backends.base import no_delay
from server.database.backends.memory import MemoryBackend
from server.database.backends.write_set import WriteSet
from server.database.models import EntityKind
from tests.support.checker import Entities, Entity, Outcome, Replay, Stored, Told, cells_of, difference
from tests.support.entities import in_copy
from tests.support.fault_rounds import is_explained
from tests.support.histories import Client, answer_of, clients
from tests.support.live import serving
from tests.support.mutating import MUTATIONS
from tests.support.plans import OF_ALL, PLANS, SWEEPS, Plan, Planner, done_of
from tests.support.watchers import watching

pytestmark = pytest.mark.anyio

RUN = Entity("run", "/c0/1/1", 1, "INITIALIZED")
WORKER = Entity("logical_worker", "c0/w1")
STUDY = Entity("study", "c0/1")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "stored", "finding"),
    [
        ((Outcome.DONE, 1), None, "/r is None"),
        ((Outcome.DONE, 1), 0, "/r is 0"),
        ((Outcome.DONE, None), 0, "/r is 0"),
        ((Outcome.REFUSED, 1), 1, "/r is 1"),
        ((Outcome.REFUSED, None), None, "/r is None"),
        ((Outcome.UNKNOWN, 1), 2, "/r is 2"),
        ((Outcome.NOT_FOUND, 1), None, "/r is not found"),
    ],
)
def test_a_planted_fault_of_one_mutation_is_found(told: tuple[Outcome, Stored], stored: Stored, finding: str) -> None:
    """A lost write, one half lost, a deletion that was undone, what was refused and done, what nobody wrote, or hid."""
    history = Told()
    history.note("/r", Outcome.DONE, 0)
    outcome, new = told
    history.note("/r", outcome, new)
    found = history.check({} if stored is None else {"/r": stored})
    assert found
    assert found[0].startswith(finding)


def test_what_may_have_been_made_anew_has_no_known_id() -> None:
    """That of one before it would not be found, which says nothing of it; what is surely there keeps its id."""
    history = Told(ids={"study a": "1", "study b": "2"})
    history.note("study a", Outcome.DONE, 1)
    history.note("study b", Outcome.DONE, None)
    for cell in ("study a", "study b"):
        history.note(cell, Outcome.UNKNOWN, 1)
    history.forget_ids(["study a", "study b"])
    assert history.ids == {"study a": "1"}


def test_either_end_of_an_unknown_outcome_is_accepted() -> None:
    """The mutation was done, or was not; a further answer decides no more than it says."""
    history = Told()
    history.note("/r", Outcome.DONE, 0)
    history.note("/r", Outcome.UNKNOWN, 1)
    assert history.check({"/r": 0}) == history.check({"/r": 1}) == []
    assert history.check({"/r": 0, "/else": 0}) == ["/else is nobody's"]
    history.note("/r", Outcome.REFUSED, 2)
    assert history.check({"/r": 0}) == history.check({"/r": 1}) == []
    assert history.check({"/r": 2}) != []


def test_what_was_done_in_part_is_what_the_effects_name() -> None:
    """A deletion that was given up has deleted those, and no other; what only lost a link is not deleted."""
    history = Told(ids={"/c0/1/1": "one", "/c0/1/2": "two", "study c0/1": "study"})
    for cell in ("/c0/1/1", "/c0/1/2", "study c0/1"):
        history.note(cell, Outcome.DONE, 1)
    plan = Plan("deleteStudy", {}, {"/c0/1/1": None, "/c0/1/2": None, "study c0/1": None}, ["study c0/1"])
    effects = [{"action": "DELETED", "id": "one"}, {"action": "UPDATED", "id": "study"}]
    with history.sending(plan.changes) as sent:
        history.settle(sent, Outcome.REFUSED, plan.targets, done_of(plan, history, effects))
    assert history.check({"/c0/1/2": 1, "study c0/1": 1}) == []
    assert history.check({"/c0/1/1": 1, "/c0/1/2": 1, "study c0/1": 1}) != []
    assert history.check({"study c0/1": 1}) != []


@pytest.mark.parametrize(
    ("response", "outcome", "is_executed"),
    [
        ({"data": {"m": {"userErrors": [], "effects": []}}}, Outcome.DONE, True),
        ({"data": {"m": {"userErrors": [{"code": "ALREADY_EXISTS"}], "effects": []}}}, Outcome.REFUSED, True),
        ({"data": {"m": {"userErrors": [{"code": "NOT_FOUND"}], "effects": []}}}, Outcome.NOT_FOUND, True),
        ({"errors": [{"extensions": {"code": "DEADLINE_EXCEEDED"}}]}, Outcome.REFUSED, False),
        ({"errors": [{"extensions": {"code": "UNKNOWN_OUTCOME"}}]}, Outcome.UNKNOWN, False),
    ],
)
def test_an_answer_is_read_as_the_documentation_says(
    response: dict[str, Any], outcome: Outcome, *, is_executed: bool
) -> None:
    """What was not executed may still have been executed before, under the same key."""
    answer = answer_of("m", response)
    assert (answer.outcome, answer.is_executed) == (outcome, is_executed)


def test_a_second_execution_under_one_key_is_found() -> None:
    """It finds its own first one: a creation is refused, so that the run is nobody's to have been created."""
    history = Told()
    history.note("/r", Outcome.REFUSED, 0)
    assert history.check({"/r": 0}) == ["/r is 0, and has to be one of {None}"]


# --- faults that take something away ----------------------------------------------------------------------------------


def test_a_history_begins_anew_with_what_a_backup_has() -> None:
    """What came since is rightly gone, and what comes later has to stay."""
    history = Told()
    history.note("/kept", Outcome.DONE, 1)
    with history.sending({"/kept": 2}) as under_way:
        backup = history.snapshot()
        history.settle(under_way, Outcome.DONE)
    history.note("/lost", Outcome.DONE, 1)
    with history.sending({"/between": 1}) as sent:
        history.go_back(backup)
        history.settle(sent, Outcome.DONE)
    for kept in (1, 2):
        assert history.check({"/kept": kept}) == history.check({"/kept": kept, "/between": 1}) == []
    assert history.check({"/kept": 1, "/lost": 1}) == ["/lost is 1, and has to be one of {None}"]
    history.note("/kept", Outcome.DONE, 3)
    assert history.check({"/kept": 1}) == ["/kept is 1, and has to be one of {3}"]


def test_only_what_a_fault_has_taken_away_may_be_gone() -> None:
    """Not its neighbours."""
    history = Told()
    for cell in ("/gone", "/there"):
        history.note(cell, Outcome.DONE, 1)
    history.lose(["/gone"])
    assert history.check({"/there": 1}) == []
    assert history.check({}) == ["/there is None, and has to be one of {1}"]


def test_only_merlins_problems_and_those_of_a_fault_are_explained() -> None:
    """Any other problem that `integrity` names is a finding."""
    stored = {"a": RUN, "b": Entity("run", "/home/merlin/1", status="INITIALIZED")}
    problem = {"entityId": "a", "otherId": "gone"}
    assert not is_explained(problem, stored, Told())
    assert is_explained(problem, stored, Told(broken={"gone"}))
    assert is_explained({"entityId": "b", "otherId": None}, stored, Told())


def test_what_waits_for_a_second_time_may_be_done_after_a_loss() -> None:
    """A client hung up and had its answer elsewhere; the note of its key is lost, and the first request goes on."""
    history = Told()
    with history.sending({"/r": 0, "study s": 1}) as sent:
        history.abandon(sent)
        history.settle(sent, Outcome.DONE)
    assert history.check({}) != []
    history.begin_anew({})
    assert history.check({}) == history.check({"/r": 0, "study s": 1}) == []
    assert history.check({"/r": 1}) != []


def test_a_deletion_that_is_done_late_takes_what_is_there_by_then() -> None:
    """Not what is no part of it; and where nothing was lost, or nobody hung up, it is not done late."""
    history = Told()
    with history.sending({}, lambda cell: cell.startswith("/a/")) as sent:
        history.settle(sent, Outcome.DONE)
    history.note("/a/1", Outcome.DONE, 1)
    history.note("/b/1", Outcome.DONE, 1)
    history.abandon(sent)
    assert history.check({"/b/1": 1}) == ["/a/1 is None, and has to be one of {1}"]
    history.begin_anew({"/a/1": 1, "/b/1": 1})
    history.note("/a/1", Outcome.NOT_FOUND, 2)
    history.note("/a/2", Outcome.DONE, 1)
    assert history.check({"/b/1": 1}) == []
    assert history.check({"/a/2": 1}) == ["/b/1 is None, and has to be one of {1}"]


def test_a_deletion_that_went_on_through_a_loss_has_deleted_what_its_effects_name() -> None:
    """Before the loss, or after it; the rest stays."""
    history = Told()
    stored: dict[str, Stored] = {"/one": 1, "/two": 1}
    history.begin_anew(stored)
    with history.sending({"/one": None, "/two": None}) as sent:
        history.begin_anew(stored)
        history.settle(sent, Outcome.REFUSED, done=["/one"])
    assert history.check(stored) == history.check({"/two": 1}) == []
    assert history.check({"/one": 1}) != []


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "stored", "finding"),
    [
        ([], {"a": RUN}, "a is None, and stored is"),
        ([("CREATED", RUN)], {}, "a is Entity"),
        ([("CREATED", RUN)], {"a": RUN._replace(number=2)}, "a is Entity"),
        ([("CREATED", RUN), ("CREATED", RUN._replace(number=2))], {"a": RUN._replace(number=2)}, "CREATED of /c0/1/1"),
        ([("UPDATED", RUN)], {"a": RUN}, "UPDATED of a, which was not there"),
        ([("DELETED", None)], {}, "DELETED of a, which was not there"),
        ([("CREATED", RUN), ("DELETED", None), ("DELETED", None)], {}, "DELETED of a, which was not there"),
        ([("CREATED", None)], {}, "CREATED of a is sent with None"),
        ([("CREATED", RUN), ("UPDATED", RUN)], {"a": RUN}, "1 changes of c0 were told again"),
    ],
)
def test_a_planted_fault_of_an_event_is_found(
    events: list[tuple[str, Entity | None]], stored: Entities, finding: str
) -> None:
    """One that is missing, that came twice, that has no change, or the wrong state."""
    replay = Replay(Told())
    for number, (change, entity) in enumerate(events):
        replay.note(change, "a", entity, number)
    found = replay.check(stored)
    assert found
    assert found[0].startswith(finding)


def test_events_in_the_wrong_order_are_found() -> None:
    """A revision that goes back."""
    replay = Replay(Told())
    replay.note("SNAPSHOT", "a", RUN, 2)
    replay.note("SNAPSHOT", "b", STUDY, 1)
    assert replay.check({"a": RUN, "b": STUDY}) == ["revision 1 comes after 2"]


def test_events_that_may_be_are_accepted() -> None:
    """A logical worker that is created again has its old id; a link that came and went leaves a run as it was."""
    replay = Replay(Told())
    replay.note("SNAPSHOT", "w", WORKER, 1)
    replay.note("CREATED", "w", WORKER, 2)
    replay.note("CREATED", "a", RUN, 3)
    replay.told.unlinked["c0"] += 1
    replay.note("UPDATED", "a", RUN, 4)
    assert replay.check({"w": WORKER, "a": RUN}) == []


def test_a_copy_that_differs_is_found() -> None:
    """In an annotation, in a link, or in an entity that it lacks."""
    stored = {"w": WORKER, "a": RUN._replace(annotation=1, workers=frozenset({"w"}))}
    assert difference(stored, stored) == []
    for copy in ({"w": WORKER, "a": RUN}, {"w": WORKER}, {**stored, "b": STUDY}):
        assert len(difference(copy, stored)) == 1
    assert cells_of(stored) == {"worker c0/w1": 1, "/c0/1/1": 1, "annotation /c0/1/1": 1, "link /c0/1/1 c0/w1": 1}


# --- the clients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deleted", "is_unseen", "left"),
    [([], True, 1), (["old"], True, None), ([], False, None), (["other"], True, 1)],
)
async def test_a_deletion_of_what_only_an_outdated_copy_has_deletes_no_namesake(
    deleted: list[str], *, is_unseen: bool, left: Stored
) -> None:
    """Where data was replaced without a notice, an id may be gone, and another entity has the same name."""
    history = Told(ids={"/c0/1/1": "old"}, is_unseen=is_unseen)
    history.note("/c0/1/1", Outcome.DONE, 1)
    effects = [{"action": "DELETED", "kind": "RUN", "id": id_} for id_ in deleted]
    answer = {"data": {"deleteRun": {"effects": effects, "userErrors": []}}}
    client = Client(Planner("c0", history, Random(1), ["deleteRun"]), ["http://server"], Random(1), sweeps=0)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer))) as http:
        await client._perform(http, client._planner.plan())
    assert history.possible["/c0/1/1"] == {left}


@pytest.mark.parametrize("mutation", sorted({*PLANS, *SWEEPS}))
async def test_what_a_deletion_changes_is_what_it_would_delete_later(mutation: str) -> None:
    """The two ways to say it agree; no other mutation deletes anything."""
    cells = ["study c0/1", "/c0/1/1", "status /c0/1/1", "link /c0/1/1 c0/w1", "worker c0/w1", "process c0/w1/1"]
    history = Told(possible={cell: {1} for cell in cells}, ids={cell: cell for cell in cells})
    planner = Planner("c0", history, Random(1), [mutation])
    for _ in range(20):
        plan = SWEEPS[mutation](planner) if mutation in SWEEPS else planner.plan()
        if mutation.startswith(("delete", "collect")):
            gone = {cell for cell, new in plan.changes.items() if new is None} | {*plan.perhaps}
            assert gone <= {cell for cell in cells if plan.deletes(cell)}
        else:
            assert not any(map(plan.deletes, cells))


def test_clients_can_send_every_mutation_that_the_schema_has() -> None:
    """A new mutation has to be added to the plans."""
    assert sorted({*PLANS, *SWEEPS}) == MUTATIONS
    assert {*OF_ALL} == {*PLANS}


async def test_every_mutation_is_acknowledged_in_a_history_without_faults() -> None:
    """All of them, some with a key and sent again; and the checker has no finding."""
    async with serving(MemoryBackend()) as live:
        async with clients(3, [live.http], 1, OF_ALL, sweeps=0.05) as told, watching([live.http], told) as replays:
            async with asyncio.timeout(60):
                while not all(told.mutations[mutation] for mutation in MUTATIONS):
                    await asyncio.sleep(0.01)
            async with told.gate.alone():
                stored = in_copy(live.database)
                async with asyncio.timeout(10):
                    while replays[0].known != stored:
                        await asyncio.sleep(0.01)
                assert told.check(cells_of(stored)) == []
                assert replays[0].check(stored) == []
        assert told.repeated > 0


class Forgetful(MemoryBackend):
    """Acknowledges what it does not keep, now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._commits = itertools.count(1)
        self.forgotten = 0

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:
        before = {key: dict(self._records[key]) for key in batch.written if key in self._records}
        is_done = await super().commit(batch, on_delay)
        if next(self._commits) % 10 == 0 and is_done:
            for key, record in before.items():
                if key.kind is EntityKind.RUN and key in self._records:
                    self._records[key] = record
                    self.forgotten += 1
        return is_done


async def test_a_database_that_forgets_is_found() -> None:
    """In a history through HTTP: a server that acknowledged what is not there."""
    backend = Forgetful()
    async with serving(backend) as live, clients(3, [live.http], 1) as told:
        findings: list[str] = []
        async with asyncio.timeout(60):
            while not any("has to be one of" in finding for finding in findings):  # a later change may hide a lost one
                enough = backend.forgotten + 10
                while backend.forgotten < enough:
                    await asyncio.sleep(0.01)
                async with told.gate.alone():
                    runs = {id_: run for id_, run in in_copy(live.database).items() if run.kind == "run"}
                    findings = told.check(cells_of(runs))
