"""What MERLIN_STATUS.json says of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.database.workspaces import TaskStatus
from server.work.workspace.status_file import Entry, StatusParser, entry_of
from tests.support.workspaces import FAILED, RUNNING, SUCCESS, status_text

SAMPLES = Path(__file__).parents[2] / "data" / "merlin_live"


def parsed(name: str) -> dict[str, Entry]:
    return dict(StatusParser(lambda entry: entry).entries_of((SAMPLES / name).read_bytes()))


def test_a_running_task_has_no_elapsed_time() -> None:
    """What Merlin writes there while it runs is garbage."""
    assert parsed("MERLIN_STATUS.running.json") == {
        "a": Entry(TaskStatus.RUNNING, None, None, None, 0, ("interw",)),
    }


def test_a_condensed_file_tells_of_each_task() -> None:
    """By the task's path."""
    found = parsed("MERLIN_STATUS.sim_TEMP.300.condensed.json")
    assert len(found) == 6
    assert found["sim/TEMP.300/1/0"] == Entry(TaskStatus.SUCCEEDED, "MERLIN_SUCCESS", 1, 1, 1, ("simworkers",))
    assert found["sim/TEMP.300/1/1"].status is TaskStatus.FAILED


def test_failures_keep_their_return_codes() -> None:
    """Also where the retries are used up."""
    flaky = parsed("MERLIN_STATUS.flaky.max_retries.json")["flaky"]
    assert (flaky.status, flaky.return_code) == (TaskStatus.FAILED, "MERLIN_SOFT_FAIL (MAX RETRIES REACHED)")
    hard = parsed("MERLIN_STATUS.hard_fail.json")["one/P.1"]
    assert (hard.status, hard.return_code) == (TaskStatus.FAILED, "MERLIN_HARD_FAIL")


@pytest.mark.parametrize(
    ("status", "return_code", "meaning"),
    [
        ("INITIALIZED", None, TaskStatus.WAITING),
        ("RUNNING", None, TaskStatus.RUNNING),
        ("FINISHED", None, TaskStatus.RETRYING),
        ("FINISHED", "MERLIN_RETRY", TaskStatus.RETRYING),
        ("FINISHED", "MERLIN_RESTART", TaskStatus.RETRYING),
        ("FINISHED", "MERLIN_SUCCESS", TaskStatus.SUCCEEDED),
        ("FINISHED", "MERLIN_NEWS", TaskStatus.UNKNOWN),
        ("FAILED", "MERLIN_SOFT_FAIL", TaskStatus.FAILED),
        ("CANCELLED", "MERLIN_STOP_WORKERS", TaskStatus.CANCELLED),
        ("DRY_RUN", "MERLIN_DRY_SUCCESS", TaskStatus.DRY_RUN),
        ("UNKNOWN", "MERLIN_UNRECOGNIZED", TaskStatus.UNKNOWN),
        ("NEWS", None, TaskStatus.UNKNOWN),
        (7, 7, TaskStatus.UNKNOWN),
    ],
)
def test_statuses_mean_what_they_do_in_merlin(status: object, return_code: object, meaning: TaskStatus) -> None:
    """FINISHED without a return code is a task that waits for its next try."""
    assert entry_of({"status": status, "return_code": return_code}).status is meaning


def test_times_are_seconds() -> None:
    """Days, hours, minutes and seconds; unknown ones are None."""
    entry = entry_of({**SUCCESS, "run_time": "1d:02h:03m:04s", "elapsed_time": "--:--:--"})
    assert (entry.run_time, entry.elapsed) == (93784, None)


def test_a_file_of_merlin_1_12_names_its_worker_elsewhere() -> None:
    """`worker_name` is no task."""
    text = json.dumps({"a": {"parameters": {}, "worker_name": "w", "a": {"status": "RUNNING"}}}).encode()
    assert list(dict(StatusParser(lambda entry: entry).entries_of(text))) == ["a"]


def test_a_file_may_be_formatted_otherwise() -> None:
    """As any JSON."""
    text = json.dumps(json.loads(status_text({"a/": SUCCESS})), indent=2).encode()
    ((path, entry),) = StatusParser(lambda entry: entry).entries_of(text)
    assert (path, entry.status) == ("a", TaskStatus.SUCCEEDED)


@given(st.integers(0, 300))
@example(len(status_text({"sim/0": SUCCESS})) - 1)
def test_a_cut_file_is_no_whole_one(length: int) -> None:
    """It raises, so that it is read again."""
    text = status_text({"sim/0": SUCCESS}).encode()
    if length < len(text):
        with pytest.raises(ValueError):  # noqa: PT011 - orjson's, of whichever message
            StatusParser(lambda entry: entry).entries_of(text[:length])


entries = st.sampled_from([SUCCESS, RUNNING, FAILED, {**SUCCESS, "return_code": None, "restarts": 2}])


@given(st.dictionaries(st.from_regex(r"sim/[0-9]{1,3}", fullmatch=True), entries), st.integers(1, 500), st.data())
def test_a_file_that_is_read_in_pieces_says_the_same(tasks: dict[str, Any], size: int, data: st.DataObject) -> None:
    """Whatever the pieces are; a cut one gives a part of it."""
    text = status_text(tasks).encode()
    expected = {path: entry_of(value) for path, value in tasks.items()}
    assert dict(_in_pieces(text, size)) == expected
    cut = dict(_in_pieces(text[: data.draw(st.integers(0, len(text)))], size))
    assert cut.items() <= expected.items()


def _in_pieces(text: bytes, size: int) -> list[tuple[str, Entry]]:
    parser, rest, found = StatusParser(lambda entry: entry), b"", []
    for start in range(0, len(text), size):
        entries, rest = parser.entries_in(rest + text[start : start + size])
        found += entries
    return found


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_either_read_or_refused(content: Any) -> None:
    """It raises nothing but ValueError."""
    try:
        StatusParser(lambda entry: entry).entries_of(json.dumps({"a": {"b": content}, "c": content}).encode())
    except ValueError:
        pytest.fail("it is JSON")
