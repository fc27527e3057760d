"""Plans: the mutations that a client of a history sends, each with what it changes if it is done."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.checker import STATUSES, Cell, Stored, Told, name_in

OF_RUNS = ("createRun", "updateRun", "deleteRun")
OF_ALL = (
    *("createStudy", "createRun", "createRun", "createRun", "createRun", "createLogicalWorker"),
    *("createPhysicalWorker", "createPhysicalWorker", "updatePhysicalWorker", "updatePhysicalWorker"),
    *("updateRun", "updateRun", "updateRun", "annotate", "annotate", "attachWorkers", "attachWorkers", "detachWorkers"),
    *("deleteRun", "deleteRuns", "deletePhysicalWorker", "deleteLogicalWorker", "deleteStudy"),
)
"""As often as they stand here."""
_PER_CLIENT = 3
"""Studies, and workers of each kind."""
_SELECTIONS: Mapping[str, str] = {
    "createRun": "run { id studyId }",
    "createStudy": "study { id }",
    "createLogicalWorker": "logicalWorker { id }",
    "createPhysicalWorker": "physicalWorker { id }",
    "collectGarbage": "deletedIds",
}
_TYPES: Mapping[str, str] = {"attachWorkers": "RunWorkers", "detachWorkers": "RunWorkers"}
_RUN = ("run", "status", "annotation", "link")
_KINDS: Mapping[str, Sequence[str]] = {
    "STUDY": ("study", *_RUN),
    "RUN": _RUN,
    "LOGICAL_WORKER": ("worker", "link"),
    "PHYSICAL_WORKER": ("process",),
}
"""The first words of the cells that end with all entities of a kind."""


@dataclass(frozen=True)
class Plan:
    """One mutation."""

    mutation: str
    input: Mapping[str, Any]
    changes: Mapping[Cell, Stored]
    targets: Sequence[Cell] = ()
    """What it names, that may be gone."""
    learn: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Notes what the payload says."""
    perhaps: Sequence[Cell] = ()
    """What may be deleted as well, or may stay."""
    by_copy: bool = False
    """Whether a server finds in its copy what it is about."""
    unlinks: bool = False
    """Whether an entity may be as it was before after this and another one."""
    deletes: Callable[[Cell], bool] = lambda _: False
    """Whether it deletes this, if it is there by then."""
    entity: str | None = None
    """The id of the one entity that a deletion is about."""

    @property
    def document(self) -> str:
        type_ = _TYPES.get(self.mutation, self.mutation[0].upper() + self.mutation[1:])
        selection = (
            f"{_SELECTIONS.get(self.mutation, '')} effects {{ action kind entityId }} userErrors {{ code message }}"
        )
        return f"mutation($input: {type_}Input!) {{ {self.mutation}(input: $input) {{ {selection} }} }}"


class Planner:
    """Chooses what one client does to its own: all that is named `NAME/…`."""

    def __init__(self, name: str, told: Told, chance: random.Random, mutations: Sequence[str] = OF_ALL) -> None:
        self.name = name
        self.told = told
        self._chance = chance
        self._mutations = mutations
        self._numbers = itertools.count(1)

    def plan(self) -> Plan:
        while True:
            mutation = self._chance.choice(self._mutations)
            if (plan := PLANS[mutation](self)) is not None:
                return plan

    def sweep(self) -> Plan:
        (mutation,) = self._chance.choices([*SWEEPS], [4, 4, 2, 1])
        return SWEEPS[mutation](self)

    # --- creations ----------------------------------------------------------------------------------------------------

    def _create_study(self) -> Plan:
        name = self._some_name("s")
        return self._creation("createStudy", {"name": name}, f"study {name}", 1, "study")

    def _create_run(self) -> Plan:
        study = "faults" if self._mutations is OF_RUNS else self._some_name("s")
        cell = f"/{self.name}/{study.rpartition('/')[2]}/{next(self._numbers)}"
        given = {"studyName": study, "workspace": cell, "queues": [], "additionalData": {"n": 0}}
        changes = {cell: 0} if self._mutations is OF_RUNS else {cell: 0, f"study {study}": 1}

        def learn(payload: Mapping[str, Any]) -> None:
            self.told.ids[cell] = payload["run"]["id"]
            self.told.ids[f"study {study}"] = payload["run"]["studyId"]

        return Plan("createRun", given, changes, (), learn)

    def _create_logical_worker(self) -> Plan:
        name = self._some_name("w")
        given = {"name": name, "queues": [self.name]}
        return self._creation("createLogicalWorker", given, f"worker {name}", 1, "logicalWorker")

    def _create_physical_worker(self) -> Plan | None:
        worker = self._some("worker")
        if worker is None:
            return None
        name = f"{name_in(worker)}/{next(self._numbers)}"
        given = {"name": name, "logicalWorkerId": self.told.ids[worker], "status": "STOPPED"}
        return self._creation("createPhysicalWorker", given, f"process {name}", 0, "physicalWorker", [worker])

    def _creation(
        self,
        mutation: str,
        given: Mapping[str, Any],
        cell: Cell,
        new: int,
        field: str,
        targets: Sequence[Cell] = (),
    ) -> Plan:
        def learn(payload: Mapping[str, Any]) -> None:
            self.told.ids[cell] = payload[field]["id"]

        return Plan(mutation, given, {cell: new}, targets, learn)

    # --- changes ------------------------------------------------------------------------------------------------------

    def _update_run(self) -> Plan | None:
        run, number = self._some("/"), next(self._numbers)
        if run is None:
            return None
        given: dict[str, Any] = {"id": self.told.ids[run], "additionalData": {"n": number}, "force": True}
        changes: dict[Cell, Stored] = {run: number}
        if self._mutations is not OF_RUNS and self._chance.random() < 0.3:
            status = self._chance.randrange(1, len(STATUSES))
            given["status"] = STATUSES[status]
            changes[f"status {run}"] = status
        return Plan("updateRun", given, changes, [run])

    def _update_physical_worker(self) -> Plan | None:
        process, number = self._some("process"), next(self._numbers)
        if process is None:
            return None
        given = {"id": self.told.ids[process], "restartCount": number}
        return Plan("updatePhysicalWorker", given, {process: number}, [process])

    def _annotate(self) -> Plan | None:
        run, number = self._some("/"), next(self._numbers)
        if run is None:
            return None
        given = {"id": self.told.ids[run], "annotations": {"n": number}}
        return Plan("annotate", given, {f"annotation {run}": number}, [run])

    def _attach_workers(self) -> Plan | None:
        return self._linking("attachWorkers", 1)

    def _detach_workers(self) -> Plan | None:
        return self._linking("detachWorkers", None)

    def _linking(self, mutation: str, new: Stored) -> Plan | None:
        run, worker = self._some("/"), self._some("worker")
        if run is None or worker is None:
            return None
        given = {"runId": self.told.ids[run], "workerIds": [self.told.ids[worker]]}
        changes = {f"link {run} {name_in(worker)}": new}
        return Plan(mutation, given, changes, [run, worker], unlinks=new is None)

    # --- deletions ----------------------------------------------------------------------------------------------------

    def _delete_run(self) -> Plan | None:
        return self._deletion("deleteRun", self._some("/"), is_of_run)

    def _delete_physical_worker(self) -> Plan | None:
        return self._deletion("deletePhysicalWorker", self._some("process"), str.__eq__)

    def _delete_logical_worker(self) -> Plan | None:
        """With its processes, all of which are stopped."""
        return self._deletion("deleteLogicalWorker", self._some("worker"), is_of_worker)

    def _delete_study(self) -> Plan | None:
        return self._deletion("deleteStudy", self._some("study"), is_of_study)

    def _deletion(self, mutation: str, target: Cell | None, belongs: Callable[[Cell, Cell], bool]) -> Plan | None:
        if target is None:
            return None

        def deletes(cell: Cell) -> bool:
            return belongs(cell, target)

        id_ = self.told.ids[target]
        given = {"id": id_, "force": True}
        return Plan(mutation, given, self._gone(deletes), [target], unlinks=True, deletes=deletes, entity=id_)

    def _delete_runs(self) -> Plan | None:
        if self._some("/") is None:
            return None
        prefix = f"/{self.name}/{self._chance.randrange(_PER_CLIENT)}/"

        def deletes(cell: Cell) -> bool:
            return run_of(cell).startswith(prefix)

        given = {"filter": {"workspace": {"startsWith": prefix}}, "force": True}
        return Plan("deleteRuns", given, self._gone(deletes), by_copy=True, unlinks=True, deletes=deletes)

    # --- of everybody's -----------------------------------------------------------------------------------------------

    def _delete_all(self) -> Plan:
        kind = self._chance.choice([*_KINDS])
        given = {"kind": kind, "confirm": True, "force": True}
        perhaps = [cell for cell in self.told.possible if kind == "LOGICAL_WORKER" and cell.startswith("process ")]

        def is_of_kind(cell: Cell) -> bool:
            return _word(cell) in _KINDS[kind]

        def deletes(cell: Cell) -> bool:
            return is_of_kind(cell) or (kind == "LOGICAL_WORKER" and cell.startswith("process "))

        gone = self._gone(is_of_kind)
        return Plan("deleteAll", given, gone, perhaps=perhaps, by_copy=True, unlinks=True, deletes=deletes)

    def _delete_everything(self) -> Plan:
        given = {"confirm": True, "force": True}
        gone = dict.fromkeys(self.told.possible)
        return Plan("deleteEverything", given, gone, by_copy=True, unlinks=True, deletes=lambda _: True)

    def _collect_garbage(self) -> Plan:
        """Studies that may have no runs may go."""
        told, era = self.told, self.told.era
        sure = {study_of(cell) for cell in told.possible if cell[0] == "/" and None not in told.may_be(cell)}

        def learn(payload: Mapping[str, Any]) -> None:
            named = {id_: cell for cell, id_ in told.ids.items()}
            for id_ in payload["deletedIds"]:
                cell = named.get(id_)
                if cell in sure and told.era == era:
                    told.violations.append(f"{cell} has runs, and was deleted as garbage")

        some = {study_of(cell) for cell in told.possible if cell[0] == "/" and told.may_be(cell) != {None}}
        studies = [cell for cell in told.possible if cell.startswith("study ")]
        gone = {cell: None for cell in studies if cell not in some}
        perhaps = [cell for cell in studies if cell in some - sure]
        return Plan(
            "collectGarbage",
            {"dryRun": False},
            gone,
            learn=learn,
            perhaps=perhaps,
            by_copy=True,
            unlinks=True,
            deletes=lambda cell: cell.startswith("study "),
        )

    def _repair(self) -> Plan:
        """Nothing of what clients did has to be repaired."""
        told = self.told
        era = told.era

        def learn(payload: Mapping[str, Any]) -> None:
            own = {id_: cell for cell, id_ in told.ids.items()}
            for effect in payload["effects"]:
                cell = own.get(effect["entityId"], "")
                if cell and "merlin" not in cell and not era:
                    told.violations.append(f"{cell} had to be repaired")

        return Plan("repair", {"dryRun": False}, {}, learn=learn)

    def _gone(self, deletes: Callable[[Cell], bool]) -> dict[Cell, Stored]:
        return {cell: None for cell in self.told.possible if deletes(cell)}

    # --- choices ------------------------------------------------------------------------------------------------------

    def _some_name(self, letter: str) -> str:
        number = self._chance.randrange(_PER_CLIENT)
        return f"{self.name}/{number}" if letter == "s" else f"{self.name}/{letter}{number}"

    def _some(self, kind: str) -> Cell | None:
        """One that may be there, and whose id is known."""
        told, mark = self.told, f"/{self.name}/" if kind == "/" else f"{kind} {self.name}/"
        own = [cell for cell in told.ids if cell.startswith(mark) and told.possible.get(cell, {None}) != {None}]
        return self._chance.choice(own) if own else None


def run_of(cell: Cell) -> str:
    """The workspace of the run that a cell is about; empty without one."""
    name = name_in(cell)
    return name if name.startswith("/") else ""


def study_of(run: Cell) -> Cell:
    """`study c1/2` of `/c1/2/17`."""
    return f"study {run.strip('/').rpartition('/')[0]}"


def is_of_run(cell: Cell, run: Cell) -> bool:
    return run_of(cell) == run


def is_of_study(cell: Cell, study: Cell) -> bool:
    run = run_of(cell)
    return cell == study or (run != "" and study_of(run) == study)


def is_link_of_worker(cell: Cell, worker: Cell) -> bool:
    return cell == worker or (cell.startswith("link ") and cell.split(" ")[2] == name_in(worker))


def is_of_worker(cell: Cell, worker: Cell) -> bool:
    return is_link_of_worker(cell, worker) or cell.startswith(f"process {name_in(worker)}/")


def _word(cell: Cell) -> str:
    return "run" if cell.startswith("/") else cell.split(" ")[0]


def done_of(plan: Plan, told: Told, effects: Sequence[Mapping[str, str]]) -> list[Cell]:
    """The changes that these effects name."""
    named = {_id_in(effect) for effect in effects}
    deleted = {_id_in(effect) for effect in effects if effect["action"] == "DELETED"}
    return [
        cell
        for cell, new in plan.changes.items()
        if told.ids.get(run_of(cell) or cell) in (deleted if new is None and _word(cell) != "link" else named)
    ]


def has_deleted(plan: Plan, effects: Sequence[Mapping[str, str]]) -> bool:
    """Whether a deletion of one entity has deleted it. It is done, too, where somebody else was first."""
    return plan.entity is None or any(
        effect["action"] == "DELETED" and _id_in(effect) == plan.entity for effect in effects
    )


def _id_in(effect: Mapping[str, str]) -> str:
    """Of a payload, or of the extensions of an error, which are no GraphQL type."""
    return effect["entityId"] if "entityId" in effect else effect["id"]


PLANS: Mapping[str, Callable[[Planner], Plan | None]] = {
    "createStudy": Planner._create_study,
    "createRun": Planner._create_run,
    "createLogicalWorker": Planner._create_logical_worker,
    "createPhysicalWorker": Planner._create_physical_worker,
    "updateRun": Planner._update_run,
    "updatePhysicalWorker": Planner._update_physical_worker,
    "annotate": Planner._annotate,
    "attachWorkers": Planner._attach_workers,
    "detachWorkers": Planner._detach_workers,
    "deleteRun": Planner._delete_run,
    "deleteRuns": Planner._delete_runs,
    "deletePhysicalWorker": Planner._delete_physical_worker,
    "deleteLogicalWorker": Planner._delete_logical_worker,
    "deleteStudy": Planner._delete_study,
}
SWEEPS: Mapping[str, Callable[[Planner], Plan]] = {
    "collectGarbage": Planner._collect_garbage,
    "repair": Planner._repair,
    "deleteAll": Planner._delete_all,
    "deleteEverything": Planner._delete_everything,
}
"""They change what is others', too."""
