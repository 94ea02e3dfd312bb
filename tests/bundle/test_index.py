"""The index says the most important first, and what is missing."""

from __future__ import annotations

from dataclasses import replace

from pytest_kernelfs.bundle.evidence import Evidence
from pytest_kernelfs.bundle.index import Case, render

CASE = Case(
    test="test_a.py::test_x",
    verdict="failed",
    phase="call",
    kernel="6.1.176, 6.1.0-50-cloud-amd64 (debian bookworm)",
    machine="memory 1024M, cpus 1",
    failure="AssertionError: no\nassert 0",
    findings=[],
    when="2030-01-01 00:00:00 +0000",
)
EVIDENCE = Evidence(
    problems={"slabinfo.txt": "PermissionError: no"},
    blocked=["sync (pid 7, tid 7) waits in wait"],
    loud=[f"[{second}.0] XFS: line {second}" for second in range(30)],
    seconds=1.25,
)
FILES = {"dmesg.txt": "", "failure.txt": ""}


def test_the_most_important_comes_first() -> None:
    lines = render(CASE, EVIDENCE, FILES).splitlines()
    assert lines[0] == "# failed: test_a.py::test_x"
    assert "- kernel: 6.1.176, 6.1.0-50-cloud-amd64 (debian bookworm)" in lines
    assert lines.index("    AssertionError: no") < lines.index("- sync (pid 7, tid 7) waits in wait")
    assert lines.index("    [29.0] XFS: line 29") < lines.index("- slabinfo.txt: PermissionError: no")


def test_of_the_log_the_end_is_shown() -> None:
    text = render(CASE, EVIDENCE, FILES)
    assert text.count("XFS: line") == 20
    assert "line 9\n" not in text
    assert "More in dmesg.txt." in text


def test_without_a_log_the_console_is_named() -> None:
    assert "More in console.log." in render(CASE, EVIDENCE, {"console.log": ""})


def test_files_are_listed_with_what_they_are() -> None:
    text = render(CASE, EVIDENCE, FILES)
    assert "    failure.txt  the failure as pytest shows it\n" in text
    assert "meminfo.txt" not in text


def test_nothing_wrong_is_said_too() -> None:
    calm = Evidence(blocked=[], loud=[])
    text = render(replace(CASE, failure="", verdict="passed"), calm, FILES)
    assert "## Failure" not in text
    assert text.count("none\n") == 2
    assert text.endswith("## Not collected\n\nnothing is missing\n")


def test_unknown_is_not_none() -> None:
    assert "unknown: neither the agent nor the kernel told" in render(CASE, Evidence(), FILES)


def test_findings_and_many_tasks() -> None:
    many = replace(EVIDENCE, blocked=[f"t{number}" for number in range(25)])
    text = render(replace(CASE, findings=["a leak:\n  /mnt/x"]), many, FILES)
    assert "## Found after the test\n\n    a leak:\n      /mnt/x\n" in text
    assert "- and 5 more" in text
