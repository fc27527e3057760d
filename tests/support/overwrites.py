"""Who overwrites what, tried with real Merlin: the tables of docs/beside-merlin.md.

`python -m tests.support.overwrites --write` writes them anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from server.database.backends.factory import BackendOptions, make_backend
from server.database.files.metadata_file import content_of
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, RunModel, RunStatus
from tests.support.live import until
from tests.support.merlin_process import MerlinError
from tests.support.merlin_site import MerlinSite
from tests.support.servers import RedisServer, binaries

PAGE = Path(__file__).parents[2] / "docs" / "beside-merlin.md"
BEGIN, END = "<!-- tests/support/overwrites.py writes from here -->\n", "<!-- to here -->\n"
HEADS = (
    "goes well",
    "parent",
    "child",
    "status",
    "additionalData",
    "workers",
    "Merlin's file then",
    "annotations",
    "a deleted run",
)


@dataclass(frozen=True)
class Case:
    """A run of Merlin's with a logical worker, and another run and worker to link it with."""

    site: MerlinSite
    database: MerlinDatabase
    id: str
    workspace: Path
    other_id: str
    worker_id: str
    other_worker_ids: list[str]

    @property
    def file(self) -> Path:
        return self.workspace / "merlin_info" / "run_metadata.json"


Action = Callable[[Case], Awaitable[bool]]
"""Whether Merlin succeeds in it."""


def status(value: str) -> Action:
    async def change(case: Case) -> bool:
        return not (await case.site.change_status(case.workspace, value)).errors

    return change


async def cancel(case: Case) -> bool:
    return await _command(case, "cancel", str(case.site.spec), "--no-purge", "--no-stop-workers")


async def delete_directory(case: Case) -> bool:
    return await _command(case, "database", "delete", "run", str(case.workspace))


async def delete_worker(case: Case) -> bool:
    return await _command(case, "database", "delete", "logical-worker", case.other_worker_ids[0])


async def _command(case: Case, *command: str) -> bool:
    ran = await case.site.command(*command)
    return (ran.code, ran.errors) == (0, [])


async def dump(case: Case) -> bool:
    try:
        await asyncio.to_thread(case.site.merlin.entity, "run", case.id, "dump_metadata")
    except MerlinError:
        return False
    return True


ACTIONS: dict[str, Action] = {
    "QUEUED: `merlin run`, `merlin restart`": status("QUEUED"),
    "RUNNING: a worker takes the first task": status("RUNNING"),
    "FAILED: a task ends with `MERLIN_HARD_FAIL`": status("FAILED"),
    "COMPLETED: the last task": status("COMPLETED"),
    "`merlin database delete run DIRECTORY`": delete_directory,
    "`merlin cancel`": cancel,
    "`merlin database delete logical-worker ID`": delete_worker,
    '`MerlinDatabase().get("run", ID).dump_metadata()`': dump,
}


@asynccontextmanager
async def case_of(site: MerlinSite, database: MerlinDatabase, name: str) -> AsyncIterator[Case]:
    """Nothing of it is left then."""
    merlin, workspace = site.merlin, site.studies / name
    queues = ["[merlin]_q"]

    def launch() -> tuple[str, str]:
        other_id = merlin.call("runs.create", study_name=site.study, workspace=f"{workspace}_other", queues=queues)
        id_ = merlin.call("runs.create", study_name=site.study, workspace=str(workspace), queues=queues)
        worker_id = merlin.call("logical_workers.create", "hand", set(queues))
        merlin.entity("logical_worker", worker_id, "add_run", id_)
        merlin.entity("run", id_, "add_worker", worker_id)
        return id_, other_id

    id_, other_id = await asyncio.to_thread(launch)
    await until(lambda: len(database.runs) == 2 and len(database.logical_workers) == 1)
    (worker,) = database.logical_workers.get_all()
    others = [await database.logical_workers.create(other, queues) for other in ("other", "another")]
    yield Case(site, database, id_, workspace, other_id, worker.id, [other.id for other in others])
    await database.delete_everything(database.unit(), force=True)


async def outcome(case: Case, action: Action, status: RunStatus) -> list[str]:
    """What became of a change of each of the five fields, of Merlin's file and of an annotation."""
    runs = case.database.runs
    await runs.update(
        case.id, parent=case.other_id, child=case.other_id, run_status=status, additional_data={"note": 1}
    )
    await runs.attach_workers(case.id, case.other_worker_ids)
    await runs.detach_workers(case.id, [case.worker_id])
    await runs.annotate(case.id, {"owner": "ada"})
    before = runs.get(case.id).record
    succeeds = await action(case)
    after = await stored(case)
    annotated = case.database.read_model.annotations
    if after is None:
        await until(lambda: case.id not in annotated)
        return [_word(succeeds), *["gone"] * len(HEADS[1:-1])]
    workers = {*before.workers} & case.database.read_model.logical_workers.records.keys()
    return [
        _word(succeeds),
        "stays" if after.parent == before.parent else "undone",
        "stays" if after.child == before.child else "undone",
        "stays" if after.run_status is before.run_status else after.run_status.value,
        "stays" if after.additional_data == before.additional_data else "undone",
        "stays" if workers == {*after.workers} else "undone",
        "agrees" if json.loads(case.file.read_text()) == content_of(after) else "differs",
        "stay" if case.id in annotated else "gone",
    ]


async def outcome_of_deletion(case: Case, action: Action) -> str:
    """What becomes of a run that was deleted here."""
    await case.database.runs.delete(case.id, force=True)
    succeeds = await action(case)
    fate = "stays deleted" if await stored(case) is None else "comes back"
    return fate if succeeds else f"{fate}; **fails**"


def _word(succeeds: bool) -> str:
    return "yes" if succeeds else "**no**"


async def stored(case: Case) -> RunModel | None:
    """The record as it is by now."""
    workers = [Key(EntityKind.LOGICAL_WORKER, id_) for id_ in (case.worker_id, *case.other_worker_ids)]
    await case.database.feed.refresh([Key(EntityKind.RUN, case.id), *workers])
    return case.database.read_model.runs.get(case.id)


async def table(site: MerlinSite, roots: Sequence[Path]) -> str:
    rows = [["what Merlin does", *HEADS], ["---"] * (len(HEADS) + 1)]
    async with opened(make_backend(site.url, BackendOptions()), workspace_roots=roots) as database:
        for number, (name, action) in enumerate(ACTIONS.items()):
            async with case_of(site, database, f"{len(roots)}_changed_{number}") as case:
                status = RunStatus.QUEUED if name.startswith("RUNNING") else RunStatus.RUNNING  # not Merlin's own
                cells = await outcome(case, action, status)
            async with case_of(site, database, f"{len(roots)}_deleted_{number}") as case:
                rows.append([name, *cells, await outcome_of_deletion(case, action)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


async def tables(site: MerlinSite) -> str:
    """As the page has them."""
    without, with_root = await table(site, []), await table(site, [site.studies])
    return f"Without `--workspace-root`:\n\n{without}\nWith it:\n\n{with_root}"


def on_the_page() -> str:
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def write(text: str) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text.strip()}\n\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.overwrites", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page anew; else print the tables")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        with (
            RedisServer.start(binaries()["redis"], here / "r") as server,
            MerlinSite(here / "home", server.url) as site,
        ):
            text = asyncio.run(tables(site))
    write(text) if arguments.write else print(text)


if __name__ == "__main__":
    main()
