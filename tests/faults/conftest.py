"""The report of the fault suite: rounds, faults, operations and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from tests.support.fault_rounds import ROUND


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rounds = [(report, value) for report in reports for name, value in report.user_properties if name == ROUND]
    if not rounds:
        return
    sums: dict[str, Counter[str]] = {}
    for _, summary in rounds:
        for title, counts in summary.items():
            sums.setdefault(title, Counter()).update(counts)
    findings = sum(report.failed for report, _ in rounds)
    seconds = sum(report.duration for report, _ in rounds)
    terminalreporter.section("fault suite")
    terminalreporter.line(f"rounds: {len(rounds)}, with findings: {findings}, seconds: {seconds:.0f}")
    for title, counts in sums.items():
        terminalreporter.line(f"{title}: {counts.total()} ({_listed(counts.most_common())})")


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts)
