"""What `merlin-graphql status` prints of an answer: the truth, within the terminal, and nothing that controls it."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm.utils import disp_len

from server.commands.status_text import text_of
from server.commands.terminal import Colour, Column, Span, Style, table
from server.database.workspaces import TaskStatus
from tests.support.status_answers import AS_OF, answer, process, progress, run, step, task

WIDE = Style(100, zone=UTC)
OWN_ESCAPE = re.compile("\x1b\\[(3[1-6]|0)m")
"""A colour that is ours, or its end."""


def text(data: dict[str, Any], style: Style = WIDE) -> str:
    return "\n".join(text_of(data, style))


# --- what is true


def test_a_run_is_shown_as_a_whole() -> None:
    """The header, a row for each step, worker and queue."""
    data = answer(
        run(
            startedAt="2026-11-25T16:01:19.554+00:00",
            statusHistory=[{"status": "RUNNING", "at": "2026-11-25T16:01:19.554+00:00"}],
            progress=progress(20, SUCCEEDED=10, RUNNING=2, WAITING=8),
            stepRuns=[step("prepare", 2.24, total=4, SUCCEEDED=4), step("sim", total=16, SUCCEEDED=6, RUNNING=2)],
            queues=["[merlin]_sim_q"],
            workers=[
                {"name": "simworkers", "physicalWorkers": {"nodes": [process("celery@simworkers.%vm", isAlive=True)]}},
                {"name": "ovw", "physicalWorkers": {"nodes": []}},
            ],
        ),
        queues=[
            {"queue": "[merlin]_other_q", "waiting": 70, "consumers": 7},
            {"queue": "[merlin]_sim_q", "waiting": 8, "consumers": None},
        ],
    )
    assert text(data).splitlines() == [
        "Run        00000000-0000-4000-8000-000000000011",
        "Study      hello",
        "Workspace  /studies/hello_20261125-160110",
        "Status     RUNNING since 2026-11-25 16:01:19",
        "Time       started 2026-11-25 16:01:19",
        "Tasks      ███████████████                 10/20 done",
        "As of      2026-11-25 16:01:24 (WORKSPACE_FILES)",
        "",
        "step                                     done  failed  running  waiting  mean time",
        "prepare  ██████████████████████████████   4/4       0        0        0       2.2s",
        "sim      ███████████▎                    6/16       0        2        0",
        "",
        "worker                 alive  active  processed  record",
        "celery@simworkers.%vm  yes         ?          ?  RUNNING",
        "ovw                    ?           ?          ?  no process",
        "",
        "queue           waiting  consumers",
        "[merlin]_sim_q        8          ?",
    ]


def test_a_hard_failure_stays_visible_when_merlin_says_completed() -> None:
    """The status is that of the record, and beside it stands when it failed."""
    history = [
        {"status": "RUNNING", "at": "2026-11-25T16:01:19+00:00"},
        {"status": "FAILED", "at": "2026-11-25T16:01:20+00:00"},
        {"status": "COMPLETED", "at": AS_OF},
    ]
    data = answer(run(status="COMPLETED", hasFailed=True, statusHistory=history, finishedAt=AS_OF, duration=5.1))
    assert "Status     COMPLETED since 2026-11-25 16:01:24\n           It failed at 2026-11-25 16:01:20." in text(data)
    assert "finished 2026-11-25 16:01:24, took 5.1s" in text(data)
    assert "Tasks of it have failed." in text(answer(run(status="COMPLETED", hasFailed=True)))
    assert "failed" not in text(answer(run(status="FAILED", hasFailed=True)))


def test_a_stuck_run_is_told_as_one() -> None:
    """Merlin's record says RUNNING for ever."""
    assert "It is stuck" in text(answer(run(isStuck=True)))
    assert "It is stuck" not in text(answer(run(isStuck=None)))


def test_a_worker_is_shown_as_it_is_and_as_it_is_recorded() -> None:
    """A killed one is dead though its record says RUNNING; one without a record is alive all the same."""
    dead = process("celery@dead.%vm", isAlive=False, lastSeenAt=AS_OF)
    live = process("celery@ovw.%vm", isAlive=True, activeTasks=2, processedTasks=23)
    known = process("celery@known.%vm", isAlive=True, physicalWorker={"id": "1"})
    gone = process("celery@gone.%vm", isAlive=False)
    workers = [{"name": "dead", "physicalWorkers": {"nodes": [dead]}}]
    assert text(answer(run(workers=workers), liveWorkers=[live, known, gone])).splitlines()[-6:-3] == [
        "worker           alive                          active  processed  record",
        "celery@dead.%vm  no, until 2026-11-25 16:01:24       ?          ?  RUNNING",
        "celery@ovw.%vm   yes                                 2         23  no record",
    ]


def test_tasks_are_listed_where_they_are_asked_for() -> None:
    """With their return codes, and how many were left out."""
    listed = {"totalCount": 7, "nodes": [task("sim/TEMP.300/1/0"), task("sim/TEMP.300/1/1", runTime=None)]}
    lines = text(answer(run(stepRuns=[step("sim")], tasks=listed))).splitlines()
    assert lines[-6:-2] == [
        "task              status  return code       restarts  time",
        "sim/TEMP.300/1/0  FAILED  MERLIN_SOFT_FAIL         0  1.5s",
        "sim/TEMP.300/1/1  FAILED  MERLIN_SOFT_FAIL         0",
        "and 5 more: --limit",
    ]
    nothing = {"totalCount": 0, "nodes": list[Any]()}
    assert "No task has this status." in text(answer(run(stepRuns=[step("sim")], tasks=nothing)))
    assert "No task is known." in text(answer(run(tasks=nothing)))


def test_what_is_missing_is_named_with_its_remedy() -> None:
    """A source that the answer lacks is told as a setting of whom it belongs to."""
    nowhere = answer(run(), database={"sources": [], "staleSince": None, "serverVersion": "0.2.0"})
    direct = "\n".join(text_of(nowhere, WIDE))
    assert "no workspace is in reach: pass --workspace-root DIR.\n" in direct
    assert direct.count("pass --broker URL.") == 2
    assert "Since when is unknown" in direct
    assert "pass --workspace-root DIR to the server." in "\n".join(text_of(nowhere, WIDE, of_server=True))
    history = [{"status": "RUNNING", "at": AS_OF}]
    assert "unknown" not in text(answer(run(statusHistory=history, stepRuns=[step("sim")])))
    assert "is not below a --workspace-root" in text(answer(run(statusHistory=history)))
    stale = {"sources": [], "staleSince": AS_OF, "serverVersion": "0.2.0"}
    assert "this is an old state" in text(answer(run(), database=stale))


def test_what_to_do_is_never_cut_off() -> None:
    """A sentence goes on in the next line of a narrow terminal."""
    nowhere = answer(run(isStuck=True), database={"sources": [], "staleSince": None, "serverVersion": "0.2.0"})
    told = " ".join(" ".join(text_of(nowhere, Style(40, zone=UTC))).split())
    assert "no workspace is in reach: pass --workspace-root DIR." in told
    assert "and no worker is alive for it." in told


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (59.9, "59.9s"), (59.96, "1m00s"), (3599.4, "59m59s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_a_duration_is_short_to_read(seconds: float, shown: str) -> None:
    """Two units at most."""
    assert f"took {shown}" in text(answer(run(duration=seconds)))


def test_rare_statuses_have_a_column_only_where_they_occur() -> None:
    """Retries stand in the table as soon as there are some."""
    assert "retrying" not in text(answer(run(stepRuns=[step("sim", SUCCEEDED=1)])))
    assert "retrying" in text(answer(run(stepRuns=[step("sim", RETRYING=1)])))


# --- how it is shown


def test_colours_are_for_terminals_only() -> None:
    """A failed step is red where colours are wanted, and else the same text without them."""
    data = answer(run(stepRuns=[step("sim", total=2, FAILED=1)]))
    coloured = text(data, Style(100, has_colours=True, zone=UTC))
    assert re.search("\x1b\\[31msim *\x1b\\[0m", coloured)
    assert OWN_ESCAPE.sub("", coloured) == text(data)


def test_a_terminal_of_another_encoding_gets_what_it_can_show() -> None:
    """A bar of signs instead of blocks; other letters are escaped."""
    data = answer(run(study={"name": "grün"}, stepRuns=[step("größe", total=2, SUCCEEDED=1)]))
    ascii_ = text(data, Style(100, encoding="ascii", zone=UTC))
    assert ascii_.isascii()
    assert "Study      gr\\xfcn" in ascii_
    assert "###############  " in ascii_
    assert "größe" in text(data, Style(100, encoding="latin-1", zone=UTC))


def test_a_long_name_is_cut_in_its_middle() -> None:
    """Both ends stay, for they tell names apart."""
    name = "first" + "x" * 200 + "last"
    for style, mark in ((Style(60, zone=UTC), "…"), (Style(60, encoding="ascii", zone=UTC), "~")):
        (line,) = (line for line in text_of(answer(run(stepRuns=[step(name, total=1)])), style) if "first" in line)
        assert re.match(f"first.*{mark}.*last ", line)


hostile = st.text(st.characters() | st.sampled_from("\x1b\x9b\n\r\b\x07\u202e\u200b\ud800漢\u0301"), max_size=60)
counts = st.integers(0, 10**12)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """With foreign text wherever a text is foreign."""

    def counted() -> dict[str, int]:
        return {status: draw(counts) for status in draw(st.sets(st.sampled_from([*TaskStatus])))}

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | strategy)

    def steps() -> list[dict[str, Any]]:
        number = draw(st.integers(0, 3))
        return [step(draw(hostile), maybe(st.floats(0, 1e7)), maybe(counts), **counted()) for _ in range(number)]

    def processes() -> list[dict[str, Any]]:
        number = draw(st.integers(0, 2))
        return [
            process(
                draw(hostile),
                status=draw(hostile),
                isAlive=maybe(st.booleans()),
                lastSeenAt=maybe(st.just(AS_OF)),
                activeTasks=maybe(counts),
            )
            for _ in range(number)
        ]

    tasks = [task(draw(hostile), draw(hostile), returnCode=maybe(hostile)) for _ in range(draw(st.integers(0, 2)))]
    workers = [
        {"name": draw(hostile), "physicalWorkers": {"nodes": processes()}} for _ in range(draw(st.integers(0, 2)))
    ]
    shown = run(
        id=draw(hostile),
        workspace=draw(hostile),
        status=draw(hostile),
        study={"name": draw(hostile)},
        hasFailed=draw(st.booleans()),
        isStuck=maybe(st.booleans()),
        progress=None if draw(st.booleans()) else progress(maybe(counts), **counted()),
        stepRuns=steps(),
        queues=draw(st.lists(hostile, max_size=2)),
        workers=workers,
        tasks={"totalCount": draw(counts), "nodes": tasks},
    )
    return answer(shown, liveWorkers=processes())


@given(
    data=answers(),
    width=st.integers(1, 200),
    encoding=st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252"]),
    has_colours=st.booleans(),
)
def test_no_line_is_wider_than_the_terminal_and_none_controls_it(
    data: dict[str, Any], width: int, encoding: str, has_colours: bool
) -> None:
    """Whatever names a workspace has: they come as printable characters that the encoding has."""
    for line in text_of(data, Style(width, encoding, has_colours, UTC)):
        plain = OWN_ESCAPE.sub("", line) if has_colours else line
        assert plain.isprintable()
        assert disp_len(plain) <= width
        plain.encode(encoding)


@given(fraction=st.floats(0, 1), width=st.integers(1, 100))
def test_a_bar_is_full_only_at_the_end(fraction: float, width: int) -> None:
    """It has its width at each fraction, and what is not done yet does not look done."""
    for style, full in ((Style(80), "█"), (Style(80, encoding="ascii"), "#")):
        bar = style.bar(fraction, width)
        assert len(bar) == width
        assert (bar == full * width) is (fraction == 1)


def test_a_narrow_table_gives_up_its_bars_first() -> None:
    """Numbers are worth more."""
    names, number = Column("step", [Span("simulate", Colour.RED)]), Column("done", [Span("1/2")], is_number=True)
    assert ["".join(span.text for span in line) for line in table(Style(16), names, [number], [0.5])] == [
        "step      done",
        "simulate   1/2",
    ]
