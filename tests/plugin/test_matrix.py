"""At the end of a run stands a table of tests and kernels."""

from __future__ import annotations

from .conftest import BOTH, Runner


def test_verdicts_and_the_worst_time_are_shown(run: Runner) -> None:
    source = """
        def test_quick(overlay, assert_umount_under): assert_umount_under(1.0)

        def test_slow(overlay_factory, assert_umount_under):
            for _ in range(3): overlay_factory()
            assert_umount_under(0.5)

        def test_lost(vm): vm.run("lost")

        def test_plain(): pass
        """
    result = run(source, *BOTH)
    result.stdout.fnmatch_lines(
        [
            "=* kernels =*",
            "5.10.262  5.10.262-fake (fake)",
            "6.1.176   6.1.176-fake (fake)",
            "*5.10.262*6.1.176",
            "test_it.py",
            "*test_quick*passed 0.25s*passed 0.25s",
            "*test_slow*FAILED 0.75s*FAILED 0.75s",
            "*test_lost*ERROR*ERROR",
            "total",
        ]
    )
    matrix = result.stdout.str().partition("= kernels =")[2].partition("short test summary")[0]
    assert "test_plain" not in matrix


def test_the_longest_of_several_measurements_is_shown(run: Runner) -> None:
    source = """
        def test_x(overlay_factory, assert_umount_under):
            for count in (2, 1):
                assert_umount_under(5.0, *[overlay_factory() for _ in range(count)])
        """
    run(source, *BOTH).stdout.fnmatch_lines(["*test_x*passed 0.50s*passed 0.50s"])


def test_a_time_that_the_test_took_itself_is_shown(run: Runner) -> None:
    source = """
        from pytest_kernelfs.measure import Measurement

        def test_x(vm, record_measurement): record_measurement(Measurement.of("read", "s", [0.1, 7.25]))
        """
    run(source, *BOTH).stdout.fnmatch_lines(["*test_x*passed 7.25s*passed 7.25s"])


def test_skipped_and_expected_failures_are_shown(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel(">=6")
        @pytest.mark.kernel_xfail("", reason="known")
        def test_x(vm): assert False
        """
    run(source, *BOTH).stdout.fnmatch_lines(["*test_x*skip*xfail"])


def test_without_tests_on_kernels_there_is_no_table(run: Runner) -> None:
    run("def test_x(): pass", *BOTH).stdout.no_fnmatch_line("=* kernels =*")
