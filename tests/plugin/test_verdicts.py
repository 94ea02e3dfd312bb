"""Failed is the kernel's fault, error is ours, and they are never mixed."""

from __future__ import annotations

import pytest

from .conftest import Runner

ONE = ("--kernel", "6.1")

IN_CALL = "def test_x(vm): vm.run({command!r}, check=True)"
IN_SETUP = """
import pytest

@pytest.fixture
def ready(vm): vm.run({command!r}, check=True)

def test_x(ready): pass
"""
IN_TEARDOWN = """
import pytest

@pytest.fixture
def ready(vm):
    yield
    vm.run({command!r}, check=True)

def test_x(ready): pass
"""


@pytest.mark.parametrize(
    ("command", "where", "outcomes"),
    [
        ("panic", IN_CALL, {"failed": 1}),
        ("panic", IN_SETUP, {"failed": 1}),
        ("panic", IN_TEARDOWN, {"passed": 1, "failed": 1}),
        ("hang", IN_CALL, {"failed": 1}),
        ("hang", IN_SETUP, {"failed": 1}),
        ("slow", IN_CALL, {"failed": 1}),
        ("fail", IN_CALL, {"failed": 1}),
        ("fail", IN_SETUP, {"errors": 1}),
        ("fail", IN_TEARDOWN, {"passed": 1, "errors": 1}),
        ("lost", IN_CALL, {"errors": 1}),
        ("lost", IN_SETUP, {"errors": 1}),
        ("lost", IN_TEARDOWN, {"passed": 1, "errors": 1}),
    ],
    ids=lambda value: {IN_CALL: "call", IN_SETUP: "setup", IN_TEARDOWN: "teardown"}.get(str(value)),
)
def test_it_depends_on_whose_fault_it_is(
    run: Runner, command: str, where: str, outcomes: dict[str, int]
) -> None:
    result = run(where.format(command=command), *ONE)
    result.assert_outcomes(**outcomes)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    section = "FAILURES" if "failed" in outcomes else "ERRORS"
    result.stdout.fnmatch_lines([f"=* {section} =*"])
    result.stdout.no_fnmatch_line(f"=* {'ERRORS' if section == 'FAILURES' else 'FAILURES'} =*")


SEVERAL_IN_TEARDOWN = """
import pytest

@pytest.fixture
def first(vm):
    yield
    vm.run({first!r}, check=True)

@pytest.fixture
def second(vm, first, kernelfs_resources):
    kernelfs_resources.findings += {findings!r}
    yield
    {second}

def test_x(second): pass
"""


@pytest.mark.parametrize(
    ("findings", "second", "outcomes"),
    [
        (["the file system is damaged"], "vm.run('fail', check=True)", {"passed": 1, "failed": 1}),
        (["the file system is damaged"], "raise RuntimeError('no')", {"passed": 1, "failed": 1}),
        ([], "vm.run('lost', check=True)", {"passed": 1, "errors": 1}),
        ([], "raise RuntimeError('no')", {"passed": 1, "errors": 1}),
    ],
)
def test_of_several_failures_in_a_teardown_the_kernels_counts(
    run: Runner, findings: list[str], second: str, outcomes: dict[str, int]
) -> None:
    result = run(SEVERAL_IN_TEARDOWN.format(first="fail", second=second, findings=findings), *ONE)
    result.assert_outcomes(**outcomes)
    shown = str(result.stdout)
    if "RuntimeError" not in second:
        assert "Traceback" not in shown
        assert "test_it.py:" in shown
    for finding in findings:
        assert finding in shown


def test_an_assertion_is_a_failure_as_ever(run: Runner) -> None:
    result = run("def test_x(vm): assert vm.run('x').rc == 5", *ONE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *assert 0 == 5"])


def test_tests_without_kernels_are_judged_as_ever(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture
        def broken(): raise RuntimeError("no")

        def test_x(broken): pass

        def test_y(): raise RuntimeError("no")
        """
    run(source).assert_outcomes(failed=1, errors=1)


def test_a_machine_that_does_not_boot_is_an_error(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELFS_TEST_BROKEN", "6.1.176")
    result = run("def test_x(vm): pass", "--kernel", "5.10,6.1")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of test_x?6.1.176?*", "kernel 6.1.176-fake did not answer within 120 s"]
    )


def test_what_the_guest_said_is_shown_without_our_frames(run: Runner) -> None:
    result = run("def test_x(vm): vm.run('fail', check=True)", *ONE)
    result.stdout.fnmatch_lines(
        [
            ">   def test_x(vm): vm.run('fail', check=True)",
            "E   pytest_kernelfs.errors.GuestCommandError: the command 'fail' failed with 1 on kernel *",
            "E   broke",
            "test_it.py:1: GuestCommandError",
        ]
    )
    result.stdout.no_fnmatch_line("*machines/vm.py*")


def test_an_assertion_helper_shows_the_tests_own_line_only(run: Runner) -> None:
    source = "def test_x(overlay, assert_umount_under): assert_umount_under(0.1)"
    result = run(source, *ONE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">   def test_x(overlay, assert_umount_under): assert_umount_under(0.1)",
            "E   AssertionError: 1 of 1 umounts took longer than 0.1 s, at most 0.250 s *",
            "test_it.py:1: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*fixtures.py*")


def test_of_a_machine_that_does_not_boot_the_message_is_all_that_is_shown(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELFS_TEST_BROKEN", "6.1.176")
    result = run("def test_x(vm): pass", *ONE)
    start = next(i for i, line in enumerate(result.outlines) if "ERROR at setup of test_x" in line)
    assert result.outlines[start + 1] == "kernel 6.1.176-fake did not answer within 120 s"
    assert "= kernels =" in result.outlines[start + 2]


def test_of_a_fixture_that_fails_its_own_line_is_shown(run: Runner) -> None:
    result = run(IN_SETUP.format(command="panic"), *ONE)
    result.stdout.fnmatch_lines(
        [
            "*_ test_x?6.1.176? _*",
            ">   def ready(vm): vm.run('panic', check=True)",
            "E   pytest_kernelfs.errors.KernelPanic: kernel 6.1.176-fake panicked:",
            "E   Kernel panic - not syncing: on request",
            "test_it.py:4: KernelPanic",
        ]
    )
    result.stdout.no_fnmatch_line("*fakes.py*")


def test_the_first_failure_stops_the_run_if_asked(run: Runner) -> None:
    source = "".join(f"def test_{name}(vm): vm.run('lost')\n" for name in "abc")
    result = run(source, *ONE, "-x")
    result.assert_outcomes(errors=1)
    assert run.events("start") == run.events("destroy") == ["6.1.176"]


def test_a_failed_teardown_throws_the_machine_away(run: Runner) -> None:
    source = """
        def test_x(vm, kernelfs_resources):
            kernelfs_resources.on_teardown("xfs /mnt/xfs-1", lambda: vm.run("fail", check=True))

        def test_y(vm): pass
        """
    result = run(source, *ONE, "--kernelfs-isolation", "session")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["the xfs /mnt/xfs-1 *the command 'fail' failed with 1*"])
    assert len(run.events("start")) == 2


@pytest.mark.parametrize("command", ["panic", "hang"])
def test_a_kernel_that_fails_while_things_are_taken_down_has_failed(run: Runner, command: str) -> None:
    source = f"""
        def test_x(vm, kernelfs_resources):
            kernelfs_resources.on_teardown("xfs /mnt/xfs-1", lambda: vm.run({command!r}))
        """
    run(source, *ONE).assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    ("parts", "outcomes"),
    [
        ("AssertionError('data was lost'), InfrastructureError('the channel')", {"failed": 1}),
        ("GuestCommandError('it broke'), InfrastructureError('the channel')", {"failed": 1}),
        ("InfrastructureError('the channel'), InfrastructureError('the disk')", {"errors": 1}),
    ],
)
def test_what_threads_of_a_test_found_together(run: Runner, parts: str, outcomes: dict[str, int]) -> None:
    source = f"""
        from pytest_kernelfs.errors import GuestCommandError, InfrastructureError

        class Several(Exception):
            exceptions = ({parts})

        def test_x(vm): raise Several("in threads")
        """
    run(source, *ONE).assert_outcomes(**outcomes)
