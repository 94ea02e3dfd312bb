"""The matrix as the terminal shows it, golden outputs as literal text."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent

import pytest

from pytest_kernelfs.report.results import Cell, ResultTable
from pytest_kernelfs.report.terminal import cell_text, plain, render, seconds

pytest_plugins = ["pytester"]

UMOUNT = "examples/overlay_umount/test_umount.py"
FOUR = ("5.10.251", "6.1.176", "6.12.94", "7.2.12")
FOURTEEN = tuple(f"6.{minor}.{minor * 7}" for minor in range(1, 15))


def table_of(results: Mapping[str, Mapping[str, str]]) -> ResultTable:
    """A table from ``{test: {kernel: "verdict" or "verdict seconds"}}``."""
    table = ResultTable()
    for test, row in results.items():
        for kernel, result in row.items():
            verdict, _, worst = result.partition(" ")
            table.add(_report(test, kernel, verdict, float(worst) if worst else None))
    return table


def row(*results: str) -> dict[str, str]:
    """Results on the four kernels; "" is none."""
    return {kernel: result for kernel, result in zip(FOUR, results, strict=True) if result}


def _report(test: str, kernel: str, verdict: str, worst: float | None) -> pytest.TestReport:
    base, bracket, rest = test.partition("[")
    nodeid = f"{base}[{kernel}-{rest}" if bracket else f"{base}[{kernel}]"
    properties: list[tuple[str, object]] = [("kernelfs_kernel", kernel)]
    if worst is not None:
        properties.append(("kernelfs_measurement", {"name": "umount", "max": worst, "unit": "s"}))
    return pytest.TestReport(
        nodeid, ("", 1, ""), {}, "passed", None, "call", user_properties=properties, kernelfs_verdict=verdict
    )


def shown(
    table: ResultTable, width: int, legend: Mapping[str, str] | None = None, *, unicode: bool = True
) -> str:
    """What a reader sees; blanks at line ends do not count, but every line fits the width."""
    lines = plain(render(table, width, legend, unicode=unicode))
    assert all(len(line) <= width for line in lines)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def golden(text: str) -> str:
    """The literal below without its first line break and its indent."""
    return dedent(text.removeprefix("\n"))


def test_four_kernels_fit_80_columns() -> None:
    table = table_of(
        {
            f"{UMOUNT}::test_parallel": row("failed 4.05", "passed 0.081", "passed 0.09", "failed 12.34"),
            f"{UMOUNT}::test_serial": row("passed 0.11", "passed 0.004", "error 3.0", "passed"),
            f"{UMOUNT}::test_volatile": row("skipped 1.0", "", "passed 0.001", "xpassed 0.001"),
            f"{UMOUNT}::TestQuota::test_full[4G]": dict.fromkeys(FOUR, "xfailed 4.0"),
        }
    )
    legend = {"5.10.251": "Debian bullseye, 5.10.0-38-cloud-amd64", "6.1.176": "", "6.12.94": "Debian trixie"}
    assert shown(table, 80, legend) == golden(
        """
        5.10.251  Debian bullseye, 5.10.0-38-cloud-amd64
        6.12.94   Debian trixie

                                5.10.251        6.1.176        6.12.94        7.2.12
        examples/overlay_umount/test_umount.py
          test_parallel     FAILED 4.05s   passed 0.08s   passed 0.09s  FAILED 12.3s
          test_serial       passed 0.11s  passed 0.004s          ERROR        passed
          test_volatile             skip              -  passed 0.001s  XPASS 0.001s
        examples/overlay_umount/test_umount.py::TestQuota
          test_full[4G]      xfail 4.00s    xfail 4.00s    xfail 4.00s   xfail 4.00s
        total
          passed                       1              2              2             1
          failed                       1              -              -             1
          error                        -              -              1             -
          skipped                      1              -              -             -
          xfailed                      1              1              1             1
          xpassed                      -              -              -             1
        """
    )


def test_fourteen_kernels_are_split_into_blocks() -> None:
    table = table_of(
        {
            f"{UMOUNT}::test_parallel": dict.fromkeys(FOURTEEN, "failed 4.05"),
            f"{UMOUNT}::test_volatile": dict.fromkeys(FOURTEEN[1:], "passed 0.01"),
        }
    )
    assert shown(table, 80) == golden(
        """
                                   6.1.7        6.2.14        6.3.21        6.4.28
        examples/overlay_umount/test_umount.py
          test_parallel     FAILED 4.05s  FAILED 4.05s  FAILED 4.05s  FAILED 4.05s
          test_volatile                -  passed 0.01s  passed 0.01s  passed 0.01s
        total
          passed                       -             1             1             1
          failed                       1             1             1             1

                                  6.5.35        6.6.42        6.7.49
        examples/overlay_umount/test_umount.py
          test_parallel     FAILED 4.05s  FAILED 4.05s  FAILED 4.05s
          test_volatile     passed 0.01s  passed 0.01s  passed 0.01s
        total
          passed                       1             1             1
          failed                       1             1             1

                                  6.8.56        6.9.63       6.10.70       6.11.77
        examples/overlay_umount/test_umount.py
          test_parallel     FAILED 4.05s  FAILED 4.05s  FAILED 4.05s  FAILED 4.05s
          test_volatile     passed 0.01s  passed 0.01s  passed 0.01s  passed 0.01s
        total
          passed                       1             1             1             1
          failed                       1             1             1             1

                                 6.12.84       6.13.91       6.14.98
        examples/overlay_umount/test_umount.py
          test_parallel     FAILED 4.05s  FAILED 4.05s  FAILED 4.05s
          test_volatile     passed 0.01s  passed 0.01s  passed 0.01s
        total
          passed                       1             1             1
          failed                       1             1             1
        """
    )


def test_long_names_are_cut_in_the_middle_or_get_a_line_of_their_own() -> None:
    names = ("test_quota_holds_when_full[4G]", "test_umount_is_not_held_up_by_dirty_pages", "test_short")
    table = table_of({f"{UMOUNT}::{name}": row(*["passed 0.001"] * 4) for name in names})
    assert shown(table, 80) == golden(
        """
                                   5.10.251        6.1.176        6.12.94         7.2.12
        examples/overlay_umount/test_umount.py
          test_quota_holds_when_full[4G]
                              passed 0.001s  passed 0.001s  passed 0.001s  passed 0.001s
          test_umount_is_not_held_up_by_dirty_pages
                              passed 0.001s  passed 0.001s  passed 0.001s  passed 0.001s
          test_short          passed 0.001s  passed 0.001s  passed 0.001s  passed 0.001s
        total
          passed                          3              3              3              3
        """
    )


def test_names_that_would_look_the_same_stay_whole() -> None:
    names = ("test_quota_holds_for_ext4_on_loop[4G]", "test_quota_holds_for_xfs_on_loop[4G]")
    table = table_of({f"{UMOUNT}::{name}": dict.fromkeys(FOUR[:3], "passed 0.001") for name in names})
    assert shown(table, 80) == golden(
        """
                                                  5.10.251        6.1.176        6.12.94
        examples/overlay_umount/test_umount.py
          test_quota_holds_for_ext4_on_loop[4G]
                                             passed 0.001s  passed 0.001s  passed 0.001s
          test_quota_holds_for_xfs_on_loop[4G]
                                             passed 0.001s  passed 0.001s  passed 0.001s
        total
          passed                                         2              2              2
        """
    )


def test_width_60() -> None:
    table = table_of({f"{'deep/' * 12}test_umount.py::test_parallel": dict.fromkeys(FOUR, "failed 4.05")})
    assert shown(table, 60) == golden(
        """
                                5.10.251       6.1.176
        …deep/deep/deep/deep/deep/deep/deep/deep/deep/test_umount.py
          test_parallel     FAILED 4.05s  FAILED 4.05s
        total
          failed                       1             1

                                 6.12.94        7.2.12
        …deep/deep/deep/deep/deep/deep/deep/deep/deep/test_umount.py
          test_parallel     FAILED 4.05s  FAILED 4.05s
        total
          failed                       1             1
        """
    )


def test_without_unicode_all_is_ascii() -> None:
    name = "test_quota_holds_when_it_is_really_all_full"
    table = table_of({f"{'deep/' * 20}test_a.py::{name}": row(*["error"] * 4)})
    legend = {FOUR[0]: "Debian " * 20}
    assert shown(table, 60, legend, unicode=False).isascii()
    assert shown(table, 60, legend, unicode=False) == golden(
        """
        5.10.251  Debian Debian Debian Debi..n Debian Debian Debian

                                  5.10.251  6.1.176  6.12.94  7.2.12
        ..eep/deep/deep/deep/deep/deep/deep/deep/deep/deep/test_a.py
          test_quota_holds_when_it_is_really_all_full
                                     ERROR    ERROR    ERROR   ERROR
        total
          error                          1        1        1       1
        """
    )


def test_long_kernel_ids_are_cut() -> None:
    kernel = "git:linux@0123456789abcdef0123456789abcdef"
    table = table_of({"t.py::test": {kernel: "passed"}})
    assert shown(table, 80) == golden(
        """
                            git:linux@01…9abcdef
        t.py
          test                            passed
        total
          passed                               1
        """
    )


def test_no_kernels_nothing_printed() -> None:
    assert render(ResultTable(["6.1"]), 80, {"6.1": "Debian"}) == []


def test_the_callers_order_of_kernels_goes_before_that_of_the_results() -> None:
    table = table_of({"t.py::test": {"6.12": "passed", "7.2": "passed", "6.1": "passed"}})
    first = shown(table, 80, {"5.10": "not run", "6.1": "", "6.12": ""}).splitlines()[0]
    assert first.split() == ["6.1", "6.12", "7.2"]


def test_each_cell_has_its_verdicts_colour() -> None:
    table = table_of({"t.py::test": {"6.1": "passed", "6.12": "failed 1.5"}})
    segments = [segment for line in render(table, 80) for segment in line]
    assert ("passed", "passed") in [(text.strip(), style) for text, style in segments]
    assert ("FAILED 1.50s", "failed") in [(text.strip(), style) for text, style in segments]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000s"),
        (0.0012, "0.001s"),
        (0.00996, "0.01s"),
        (4.049, "4.05s"),
        (9.996, "10.0s"),
        (99.96, "100s"),
        (3600.4, "3600s"),
    ],
)
def test_times_keep_the_digits_that_tell_something(value: float, text: str) -> None:
    assert seconds(value) == text


def test_what_did_not_run_is_a_dash() -> None:
    assert cell_text(None) == "-"


CONFTEST = """
import pytest
from pytest_kernelfs.report.results import Cell, ResultTable
from pytest_kernelfs.report.terminal import write_matrix

table = ResultTable()

def pytest_runtest_logreport(report):
    table.add(report)

def pytest_terminal_summary(terminalreporter):
    write_matrix(terminalreporter, table, {"6.1": "Debian bookworm"})

@pytest.fixture(params=["6.1", "6.12"])
def kernel(request):
    request.node.user_properties.append(("kernelfs_kernel", request.param))
    return request.param
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:kernelfs", *arguments)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_a_real_run_ends_with_the_matrix(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    pytester.makepyfile(test_it="def test_x(kernel): assert kernel == '6.1'")
    result = run(pytester, *arguments)
    result.stdout.fnmatch_lines(
        ["=* kernels =*", "6.1  Debian bookworm", " *6.1 *6.12", "test_it.py", "  test_x  *passed *FAILED"]
    )


def test_a_coloured_run_is_coloured(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_x(kernel): pass")
    lines = run(pytester, "--color=yes").outlines
    assert any("\x1b[32mpassed\x1b[0m" in line for line in lines if "test_x" in line)


def test_a_run_without_kernels_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_y(): pass")
    run(pytester).stdout.no_fnmatch_line("=* kernels =*")


def test_an_attempt_that_was_not_the_first_is_marked() -> None:
    assert cell_text(Cell("passed", 0.5, attempts=2)) == "passed (2nd) 0.50s"
    assert cell_text(Cell("failed", attempts=3)) == "FAILED (3rd)"
    assert cell_text(Cell("passed", attempts=4)) == "passed (4th)"
