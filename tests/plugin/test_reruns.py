"""A test that pytest-rerunfailures has run again: what is shown of it, and what its first attempt said."""

from __future__ import annotations

from .conftest import BOTH, Runner

SOURCE = """
    import pathlib

    from pytest_kernelfs.measure import Measurement

    def fails_once(name):
        path = pathlib.Path(name)
        before = path.exists()
        path.touch()
        return not before

    def test_once(vm, kernel, record_measurement):
        first = kernel.version.major == 5 and fails_once("a")
        record_measurement(Measurement.of("read", "s", [7.25 if first else 0.25]))
        assert not first, "it was too slow"

    def test_always(vm): assert False
    """


# The runs of these tests load no plugin by themselves.
AGAIN = ("-p", "pytest_rerunfailures", "--reruns", "1")


def test_the_last_attempt_counts_and_the_first_is_told(run: Runner) -> None:
    result = run(SOURCE, *BOTH, *AGAIN)
    result.stdout.fnmatch_lines(
        [
            "=* failed, and run again =*",
            "_* test_once*5.10.262* _*",
            "*AssertionError: it was too slow",
            "kernelfs: artifacts of this failure: *",
            "=* kernels =*",
            "*test_once*passed (2nd) 0.25s*passed 0.25s",
            "*test_always*FAILED (2nd)*FAILED (2nd)",
            "*run again*2*1",
        ]
    )
    result.assert_outcomes(passed=2, failed=2)


def test_workers_of_xdist_tell_it_as_well(run: Runner) -> None:
    result = run.apart(SOURCE, *BOTH, *AGAIN, "-p", "xdist.plugin", "-n", "2", "-k", "once")
    result.stdout.fnmatch_lines(["=* failed, and run again =*", "*it was too slow", "*passed (2nd)*"])
    result.assert_outcomes(passed=2)


def test_without_it_nothing_is_said(run: Runner) -> None:
    result = run("def test_x(vm): pass", *BOTH)
    result.stdout.no_fnmatch_line("*run again*")
