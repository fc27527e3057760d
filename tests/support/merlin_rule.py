"""What Merlin must still be able to do after anything that this server has done: all that it could before."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Model, RunModel, name_of, optional
from tests.support.merlin_copies import Copies, State
from tests.support.merlin_process import Ran

Arguments = tuple[str, ...]
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DONE = Ran(0, (), "")
UNREADABLE = "(Error loading"
"""What Merlin prints in the place of a run that it can't read; not an error to it."""
ENTITIES: Mapping[EntityKind, str] = {kind: kind.replace("_", "-") for kind in EntityKind}
KINDS = ("studies", "runs", "logical-workers", "physical-workers")
SPEC = """
description: {name: hello, description: one step}
env: {variables: {OUTPUT_PATH: STUDIES}}
study:
  - name: greet
    description: says it
    run: {cmd: echo hello, task_queue: greetings}
merlin: {resources: {workers: {greeter: {steps: [greet]}}}}
"""


def spec(copies: Copies) -> Path:
    """One of the study `hello`."""
    path = copies.merlin.home / "hello.yaml"
    path.write_text(SPEC.replace("STUDIES", str(copies.studies)))
    return path


# --- starting points --------------------------------------------------------------------------------------------------


def empty(copies: Copies) -> None:
    """Merlin has been asked, and nothing more."""
    assert copies.command("database", "info").code == 0


def launched(copies: Copies) -> None:
    """Twice the same study, by the command: on SQLite it has run, on Redis it waits for workers."""
    for name in ("first", "second"):
        output = copies.studies / name
        assert copies.command("run", str(spec(copies)), "--vars", f"OUTPUT_PATH={output}").code == 0


def worked(copies: Copies) -> None:
    """As after some days of work without workers' records, as `merlin run --local` leaves it."""
    _runs(copies)


def staffed(copies: Copies) -> None:
    """As after some days of work with real workers, one of which was launched twice."""
    _workers(copies, _runs(copies))


def interrupted(copies: Copies) -> None:
    """What Merlin itself leaves half done: it keeps runs without a study, and loses an update or two."""
    workers = _runs(copies)
    _one_sided(copies, workers)


def forsaken(copies: Copies) -> None:
    """As above with real workers: one whose logical worker Merlin has deleted."""
    workers = _runs(copies)
    _workers(copies, workers)
    assert copies.command("database", "delete", "logical-worker", workers["sim"]).code == 0
    _one_sided(copies, {"greeter": workers["greeter"]})


def _one_sided(copies: Copies, workers: Mapping[str, str]) -> None:
    merlin = copies.merlin
    assert copies.command("database", "delete", "study", "-k", "other").code == 0
    runs = merlin.get("study", "hello")["runs"]  # type: ignore[index]
    merlin.entity("study", "hello", "remove_run", runs[0])
    merlin.entity("logical_worker", workers["greeter"], "remove_run", runs[1])


def _runs(copies: Copies) -> dict[str, str]:
    """Four runs of two studies, as `merlin run` and its tasks write them."""
    merlin = copies.merlin
    queues = {"greeter": {"[merlin]_greetings"}, "sim": {"[merlin]_sim", "[merlin]_post"}}
    workers: dict[str, str] = {}
    for number, (study, status) in enumerate(
        [("hello", "COMPLETED"), ("hello", "RUNNING"), ("hello", "FAILED"), ("other", "QUEUED")]
    ):
        workspace = str(copies.studies / f"{study}_20260301-00000{number}")
        run = merlin.call("runs.create", study_name=study, workspace=workspace, queues=sorted(queues["sim"]))
        for name in ("greeter", "sim") if number else ("greeter",):
            workers[name] = merlin.call("logical_workers.create", name, queues[name])
            merlin.entity("logical_worker", workers[name], "add_run", run)
            merlin.entity("run", run, "add_worker", workers[name])
        merlin.entity("run", workspace, "set_run_status", "QUEUED")
        if status != "QUEUED":
            merlin.entity("run", workspace, "set_run_status", status)
    return workers


def _workers(copies: Copies, workers: Mapping[str, str]) -> None:
    """Merlin can't read one back from SQLite."""
    merlin = copies.merlin
    again = 1 if "sqlite" in copies.url else 2
    for worker, host, launches in (("greeter", "node1", again), ("sim", "node1", 1), ("sim", "node2", 1)):
        name = f"celery@{worker}.%{host}"
        for _ in range(launches):
            process = merlin.call(
                "physical_workers.create",
                name=name,
                host=host,
                worker_status="RUNNING",
                logical_worker_id=workers[worker],
                pid=4242,
            )
            merlin.entity("logical_worker", workers[worker], "add_physical_worker", process)
        if host == "node1" and again == 2:
            merlin.entity("physical_worker", name, "set_worker_status", "STOPPED")
            merlin.entity("physical_worker", name, "set_pid", None)


STARTS: Mapping[str, Callable[[Copies], None]] = {
    start.__name__: start for start in (empty, launched, worked, staffed, interrupted, forsaken)
}


# --- what Merlin is asked to do ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Present:
    """An entity, by what a shell names it."""

    record: Model
    kind: EntityKind
    name: str | None
    """None where it has none that Merlin can look up in the database."""
    directory: str | None
    """A run's workspace where it is there: of such a run Merlin reads the file."""


def present(database: MerlinDatabase, state: State) -> list[Present]:
    found = []
    for kind in EntityKind:
        for record in database.read_model.tables[kind].records.values():
            name, directory = name_of(record), None
            if isinstance(record, RunModel):
                directory = name if Path(name or "") in state.files else None
                if directory is not None or database.kind == "sqlite":  # there it asks for a column that there is not
                    name = None
            found.append(Present(record, kind, name, directory))
    return found


def worth_trying(entities: Sequence[Present], before: Sequence[Present]) -> list[Present]:
    """Of each kind those that changed, and one of the others."""
    changed = [one for one in entities if one not in before]
    others = {one.kind: one for one in entities if one not in changed}
    return [*changed, *others.values()]


@dataclass(frozen=True)
class Command:
    arguments: Arguments
    changes: bool
    """It gets a copy of its own."""


def on_the_database(entities: Collection[Present], copies: Copies) -> Iterator[Command]:
    """Commands that ask the database alone."""
    path = str(spec(copies))
    yield Command(("database", "info"), changes=False)
    yield Command(("database", "get", "everything"), changes=False)
    yield from (Command(("database", "get", f"all-{kind}"), changes=False) for kind in KINDS)
    for one in entities:
        kind, id_ = ENTITIES[one.kind], one.record.id
        yield Command(("database", "get", kind, one.name or id_), changes=False)
        yield Command(("database", "delete", kind, id_), changes=True)
    yield from (Command(("database", "delete", f"all-{kind}"), changes=True) for kind in KINDS)
    yield Command(("database", "delete", "all-studies", "--keep-associated-runs"), changes=True)
    yield Command(("database", "delete", "everything", "--force"), changes=True)
    yield Command(("database", "gc", "--force"), changes=True)
    yield Command(("query-workers",), changes=True)
    yield Command(("run", path), changes=True)
    if any((one.kind, one.name) == (EntityKind.STUDY, "hello") for one in entities):
        yield Command(("cancel", path, "--no-purge", "--no-stop-workers"), changes=True)


def on_directories(entities: Collection[Present], _: Copies) -> Iterator[Command]:
    """Commands that read the file which Merlin keeps in a run's workspace."""
    for one in entities:
        for directory in optional(one.directory):
            yield Command(("database", "get", "run", directory), changes=False)
            yield Command(("database", "delete", "run", directory), changes=True)


Commands = Callable[[Collection[Present], Copies], Iterator[Command]]


def tried(copies: Copies, state: State, commands: Iterable[Command]) -> dict[Arguments, Ran]:
    """What comes of each of them."""
    outcomes = {}
    touched = True
    for command in sorted(commands, key=lambda command: command.changes):
        if touched:
            copies.hand_over(state)
        outcomes[command.arguments] = copies.command(*command.arguments)
        touched = command.changes
    return outcomes


def broken(before: Mapping[Arguments, Ran], after: Mapping[Arguments, Ran]) -> list[str]:
    """Those that went well before, and do no more. What is new is to be as good as what was there.

    What was said of one entity before may be said of another now.
    """
    found = []
    for arguments, now in after.items():
        then = before.get(arguments) or _alike(before, arguments)
        complaints = {_ID.sub("…", line) for line in then.errors}
        worse = [line for line in now.errors if _ID.sub("…", line) not in complaints]
        unreadable = now.printed.count(UNREADABLE) > then.printed.count(UNREADABLE)
        if then.code == 0 and (now.code != 0 or worse or unreadable):
            found.append(f"merlin {' '.join(arguments)}: exit code {now.code}, {worse or UNREADABLE}")
    return found


def _alike(before: Mapping[Arguments, Ran], arguments: Arguments) -> Ran:
    """The best that came of the command for another entity of the kind."""
    others = (ran for known, ran in before.items() if len(known) == len(arguments) and known[:-1] == arguments[:-1])
    return min(others, key=lambda ran: (ran.code, len(ran.errors)), default=DONE)
