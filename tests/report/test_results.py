"""What the table makes of pytest's reports, one phase after another."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from pytest_kernelfs.report.results import Cell, ResultTable, verdict_of, without_kernel

Outcome = Literal["passed", "failed", "skipped"]


def report(
    nodeid: str = "test_a.py::test_x[6.1]",
    outcome: Outcome = "passed",
    when: Any = "call",
    *,
    kernel: str | None = "6.1",
    measured: list[dict[str, object]] | None = None,
    **extra: Any,
) -> pytest.TestReport:
    properties: list[Any] = [["kernelfs_kernel", kernel]] if kernel else []
    properties += [("kernelfs_measurement", value) for value in measured or []]
    return pytest.TestReport(
        nodeid, ("test_a.py", 1, "test_x"), {}, outcome, None, when, user_properties=properties, **extra
    )


def table_of(*reports: pytest.TestReport) -> ResultTable:
    table = ResultTable()
    for one in reports:
        table.add(one)
    return table


def verdict(*reports: pytest.TestReport) -> str | None:
    cell = table_of(*reports).cell("test_a.py::test_x", "6.1")
    return cell.verdict if cell else None


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], "passed"),
        ([("setup", "passed"), ("call", "failed"), ("teardown", "passed")], "failed"),
        ([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], "error"),
        ([("setup", "failed"), ("teardown", "passed")], "error"),
        ([("setup", "skipped"), ("teardown", "passed")], "skipped"),
        ([("setup", "passed"), ("call", "failed"), ("teardown", "failed")], "error"),
    ],
)
def test_phases_add_up_to_the_worst(phases: list[tuple[str, Outcome]], expected: str) -> None:
    assert verdict(*[report(outcome=outcome, when=when) for when, outcome in phases]) == expected


def test_the_plugins_verdict_goes_before_pytests_outcome() -> None:
    panic = report(outcome="failed", when="teardown", kernelfs_verdict="failed")
    assert verdict(report(), panic) == "failed"
    assert verdict_of(report(outcome="failed", kernelfs_verdict="error")) == "error"


def test_a_verdict_that_is_none_of_ours_is_not_believed() -> None:
    assert verdict_of(report(kernelfs_verdict="rerun")) == "passed"


@pytest.mark.parametrize(
    ("outcome", "expected"), [("skipped", "xfailed"), ("passed", "xpassed"), ("failed", "failed")]
)
def test_xfail(outcome: Outcome, expected: str) -> None:
    assert verdict_of(report(outcome=outcome, wasxfail="reason: known")) == expected


def test_a_test_that_was_only_set_up_has_no_result() -> None:
    table = table_of(report(when="setup"))
    assert table.cell("test_a.py::test_x", "6.1") is None
    assert not table


def rerun(**extra: Any) -> pytest.TestReport:
    again = report(**extra)
    again.outcome = "rerun"  # type: ignore[assignment]  # as pytest-rerunfailures sets it
    return again


def test_an_attempt_that_is_repeated_does_not_count() -> None:
    slow: list[dict[str, object]] = [{"name": "umount", "max": 9.0, "unit": "s"}]
    first = (report(when="setup"), rerun(), report(when="teardown", measured=slow))
    table = table_of(*first, report(when="setup"), report(), report(when="teardown"))
    assert table.cell("test_a.py::test_x", "6.1") == Cell("passed", None, attempts=2)
    assert (table.repeated("6.1"), table.repeated("5.10")) == (1, 0)
    last = (report(when="setup"), report(outcome="failed"))
    assert table_of(*first, *first, *last).totals("6.1") == {"failed": 1}
    assert verdict(report(), rerun(when="teardown"), report(outcome="skipped", when="setup")) == "skipped"
    both = (report(when="setup"), rerun(), rerun(when="teardown"))  # as where the machine has died
    assert table_of(*both, *last).cell("test_a.py::test_x", "6.1") == Cell("failed", attempts=2)
    assert not table_of(rerun(), report(when="teardown"))  # interrupted before it ran again


def test_the_worst_time_of_all_measurements_and_phases_is_kept() -> None:
    table = table_of(
        report(
            measured=[{"name": "umount", "max": 0.5, "unit": "s"}, {"name": "read", "max": 0.7, "unit": "s"}]
        ),
        report(when="teardown", measured=[{"name": "umount", "max": 0.6, "unit": "s"}]),
    )
    assert table.cell("test_a.py::test_x", "6.1") == Cell("passed", 0.7)


def test_quantities_other_than_times_are_left_out() -> None:
    measured: list[dict[str, object]] = [
        {"name": "written", "max": 4096.0, "unit": "B"},
        {"name": "empty", "max": None, "unit": "s"},
    ]
    assert table_of(report(measured=measured)).cell("test_a.py::test_x", "6.1") == Cell("passed", None)


def test_tests_without_a_kernel_are_not_in_the_table() -> None:
    assert table_of(report(kernel=None)).tests == []


def test_a_worker_that_died_is_an_error_of_the_kernel_in_the_name() -> None:
    table = ResultTable(["5.10", "6.1"])
    table.add(report(outcome="failed", when="???", kernel=None))
    assert table.cell("test_a.py::test_x", "6.1") == Cell("error")


def test_kernels_known_beforehand_come_first() -> None:
    table = ResultTable(["6.1", "6.12"])
    table.add(report("t.py::test[5.10]", kernel="5.10"))
    table.add(report("t.py::test[6.12]", kernel="6.12"))
    assert table.kernels == ["6.1", "6.12", "5.10"]
    assert table.totals("6.12") == {"passed": 1}
    assert not table.totals("6.1")


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("t.py::test[6.1]", "t.py::test"),
        ("t.py::test[6.1-4G]", "t.py::test[4G]"),
        ("t.py::test[4G-6.1]", "t.py::test[4G]"),
        ("t.py::test[a-6.1-b]", "t.py::test[a-b]"),
        ("t.py::test[6.1-6.1]", "t.py::test[6.1]"),
        ("t.py::test[6.12]", "t.py::test[6.12]"),
        ("t.py::test[6x1]", "t.py::test[6x1]"),
        ("t.py::test", "t.py::test"),
        ("t.py::test[6.1]@slow", "t.py::test"),
        ("t.py::test[a::b-6.1]", "t.py::test[a::b]"),
        ("t.py::test[x[0]-6.1]", "t.py::test[x[0]]"),
    ],
)
def test_only_the_kernels_part_leaves_the_name(nodeid: str, expected: str) -> None:
    assert without_kernel(nodeid, "6.1") == expected


def test_it_reads_what_xdist_sends() -> None:
    config = pytest.Config.fromdictargs({}, [])
    sent = report(measured=[{"name": "umount", "max": 4.05, "unit": "s"}], kernelfs_verdict="failed")
    data = config.hook.pytest_report_to_serializable(config=config, report=sent)
    received = config.hook.pytest_report_from_serializable(config=config, data=data)
    assert table_of(received).cell("test_a.py::test_x", "6.1") == Cell("failed", 4.05)


def test_what_another_plugin_tries_again_is_counted_at_last() -> None:
    """pytest-retry sets nothing up anew."""
    first = report()
    first.outcome = "retried"  # type: ignore[assignment]
    assert verdict(report(when="setup"), first, report(), report(when="teardown")) == "passed"
