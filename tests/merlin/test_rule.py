"""The rule: every command of Merlin that worked before a mutation works after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import opened
from tests.support.merlin_copies import Copies, RedisCopies, SQLiteCopies, State
from tests.support.merlin_process import MerlinError, Ran
from tests.support.merlin_rule import (
    STARTS,
    Arguments,
    Commands,
    Present,
    broken,
    on_directories,
    on_the_database,
    present,
    tried,
    worth_trying,
)
from tests.support.mutating import MUTATIONS, SLOW, Known, Step, each, perform, steps
from tests.support.servers import RedisServer, binaries

SAME = settings(SLOW, derandomize=True, phases=[Phase.explicit, Phase.generate])
"""For the default suite: when it fails the last change is the reason, and a history is short enough as it is."""
LONGEST = 8
"""So many mutations a history."""

NextStep = Callable[[Known], Step | None]
"""The next mutation of a history, in view of what there is by then; None ends it."""


@dataclass(frozen=True)
class History:
    """Mutations, and what they left behind."""

    mutations: Sequence[str]
    """Each with its refusals."""
    state: State
    entities: Sequence[Present]
    known: Known

    def __str__(self) -> str:
        return "\n".join(self.mutations)


@dataclass(frozen=True)
class Start:
    """A database that Merlin has filled, and the empty history."""

    history: History
    outcomes: dict[Commands, dict[Arguments, Ran]] = field(default_factory=dict)
    verdicts: list[tuple[Commands, State, list[str]]] = field(default_factory=list)
    """Several histories come to the same."""


class Site:
    def __init__(self, copies: Copies) -> None:
        self.copies = copies
        self._starts: dict[str, Start] = {}

    def start(self, name: str) -> Start:
        """Made when it is first asked for."""
        if name not in self._starts:
            if name != "empty":
                self.copies.hand_over(self.start("empty").history.state)
            STARTS[name](self.copies)
            self._starts[name] = Start(anyio.run(self._history, self.copies.of_merlin(), lambda _: None))
        return self._starts[name]

    def history(self, start: Start, next_step: NextStep) -> History:
        return anyio.run(self._history, start.history.state, next_step)

    def broken(self, start: Start, history: History, commands: Commands) -> list[str]:
        """The commands that worked before it and don't any more."""
        if history.state == start.history.state:
            return []
        for known, state, verdict in start.verdicts:
            if (known, state) == (commands, history.state):
                return verdict
        if commands not in start.outcomes:
            start.outcomes[commands] = self._outcomes(start.history.state, commands, start.history.entities)
        entities = worth_trying(history.entities, start.history.entities)
        verdict = broken(start.outcomes[commands], self._outcomes(history.state, commands, entities))
        start.verdicts.append((commands, history.state, verdict))
        return verdict

    def _outcomes(self, state: State, commands: Commands, entities: Sequence[Present]) -> dict[Arguments, Ran]:
        return tried(self.copies, state, commands(entities, self.copies))

    async def _history(self, state: State, next_step: NextStep) -> History:
        known, mutations = Known(self.copies.studies), []
        self.copies.serve(state)
        async with opened(
            make_backend(self.copies.url, BackendOptions()), workspace_roots=[self.copies.studies]
        ) as database:
            known.learn(database)
            while (step := next_step(known)) is not None:
                refusals = await perform(database, step)
                mutations.append(f"{step}{f' was refused: {refusals}' if refusals else ''}")
                known.learn(database)
        state = self.copies.as_served()
        return History(mutations, state, present(database, state), known)


@pytest.fixture(scope="module", params=["sqlite", "redis", pytest.param("valkey", marks=pytest.mark.soak)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rule")
    if request.param == "sqlite":
        local = SQLiteCopies(directory / "home")
        with local.merlin:
            yield Site(local)
        return
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server is installed here")
    with RedisServer.start(binary, directory) as server:
        copies = RedisCopies(directory / "home", server.url.removesuffix("0"))
        with copies.merlin, closing(copies):
            yield Site(copies)


def each_start(*usual: tuple[str, str]) -> pytest.MarkDecorator:
    """Those that are not usual are left to the soak."""
    return pytest.mark.parametrize(
        ("site", "start"),
        [
            pytest.param(engine, start, marks=[] if (engine, start) in usual else pytest.mark.soak)
            for engine in ("sqlite", "redis", "valkey")
            for start in STARTS
        ],
        indirect=["site"],
        scope="module",  # else a site is made anew for each test
    )


each_mutation = pytest.mark.parametrize("mutation", MUTATIONS)


def check(site: Site, start: Start, history: History, commands: Commands) -> None:
    worse = site.broken(start, history, commands)
    assert not worse, "\n".join(["After", *history.mutations, "Merlin can't any more:", *worse])


@each_start(("redis", "forsaken"))
@each_mutation
def test_merlin_works_after_each_mutation(site: Site, start: str, mutation: str) -> None:
    """Each mutation alone, with its defaults and with each of its choices."""
    before = site.start(start)
    changed = False
    for history in alone(site, before, mutation):
        check(site, before, history, on_the_database)
        changed = changed or history.state != before.history.state
    assert changed or start != "forsaken", "there is something to do for every mutation"


@each_start(("sqlite", "interrupted"))
@each_mutation
def test_merlin_works_on_directories_after_each_mutation(site: Site, start: str, mutation: str) -> None:
    """The same for the commands that name a run by its directory, and read Merlin's file there."""
    before = site.start(start)
    for history in alone(site, before, mutation):
        check(site, before, history, on_directories)


def alone(site: Site, start: Start, mutation: str) -> Iterator[History]:
    for step in each(mutation, start.history.known):
        left = [step]
        yield site.history(start, lambda _: left.pop() if left else None)  # noqa: B023 - it is over by then


@settings(SAME, max_examples=4)
@given(st.data())
def test_merlin_works_after_any_history(site: Site, data: st.DataObject) -> None:
    """Mutations of all kinds in any order."""
    check_any_history(site, data, on_the_database)


@settings(SAME, max_examples=6)
@given(st.data())
def test_merlin_works_on_directories_after_any_history(site: Site, data: st.DataObject) -> None:
    """The same for the commands that name a run by its directory."""
    check_any_history(site, data, on_directories)


@pytest.mark.soak
@pytest.mark.parametrize("commands", [on_the_database, on_directories])
@settings(SLOW, max_examples=1000)
@given(st.data())
def test_merlin_works_after_each_of_many_histories(site: Site, commands: Commands, data: st.DataObject) -> None:
    """As above, for longer."""
    check_any_history(site, data, commands)


def check_any_history(site: Site, data: st.DataObject, commands: Commands) -> None:
    start = site.start(data.draw(st.sampled_from(list(STARTS)), label="start"))
    left = data.draw(st.integers(1, LONGEST), label="mutations")

    def next_step(known: Known) -> Step | None:
        nonlocal left
        left -= 1
        return data.draw(steps(known)) if left >= 0 else None

    check(site, start, site.history(start, next_step), commands)


@pytest.mark.parametrize("site", ["redis"], indirect=True)
def test_commands_do_what_a_shell_would_see(site: Site) -> None:
    """Run in a process that has run others, a command prints what the program prints, and fails where it does."""
    site.copies.hand_over(site.start("staffed").history.state)
    merlin = site.copies.merlin
    everything = merlin.command("database", "get", "everything")
    printed = {line for line in everything.printed.splitlines() if not line.startswith("Queues:")}  # sets, in any order
    assert everything.code == 0
    assert len(printed) > 20
    assert printed <= set(merlin.cli("database", "get", "everything").splitlines())
    failed = merlin.command("database", "get", "run", "nowhere")
    assert failed.code == 1
    with pytest.raises(MerlinError, match="exit code 1") as program:
        merlin.cli("database", "get", "run", "nowhere")
    assert "Run with ID or workspace nowhere not found" in failed.errors[0]
    assert "Run with ID or workspace nowhere not found" in str(program.value)
