"""Why a test was run again: what it failed with before, which pytest-rerunfailures does not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kernelfs.report.results import KERNEL_PROPERTY

if TYPE_CHECKING:
    import pytest


def write_repeats(terminalreporter: pytest.TerminalReporter) -> None:
    """Write a section of pytest's summary; nothing if no test on a kernel was run again."""
    reports = [report for report in terminalreporter.stats.get("rerun", []) if _is_ours(report)]
    if not reports:
        return
    terminalreporter.write_sep("=", "failed, and run again")
    for report in reports:
        terminalreporter.write_sep("_", report.head_line or report.nodeid)
        for line in report.longreprtext.splitlines():
            terminalreporter.write_line(line)
        for title, text in report.sections:
            if title == "kernelfs":
                terminalreporter.write_line(text)


def _is_ours(report: pytest.TestReport) -> bool:
    return any(name == KERNEL_PROPERTY for name, _ in report.user_properties)
