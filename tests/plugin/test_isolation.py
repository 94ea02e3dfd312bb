"""Which tests share a machine, and when one is thrown away."""

from __future__ import annotations

import pytest

from .conftest import BOTH, Runner

ONE = ("--kernel", "6.1")
TWO_CLASSES = """
class TestOne:
    def test_a(self, vm): pass
    def test_b(self, vm): pass

class TestTwo:
    def test_a(self, vm): pass

def test_a(vm): pass
def test_b(vm): pass
"""
OTHER_MODULE = "def test_a(vm): pass\ndef test_b(vm): pass\n"


@pytest.mark.parametrize(
    ("isolation", "machines"), [("test", 7), ("class", 4), ("module", 2), ("session", 1)]
)
def test_machines_are_shared_as_asked(
    run: Runner, pytester: pytest.Pytester, isolation: str, machines: int
) -> None:
    pytester.makepyfile(test_other=OTHER_MODULE)
    run(TWO_CLASSES, *ONE, "--kernelfs-isolation", isolation).assert_outcomes(passed=7)
    assert len(run.events("start")) == len(run.events("destroy")) == machines


def test_kernels_never_share_a_machine(run: Runner) -> None:
    run(TWO_CLASSES, *BOTH, "--kernelfs-isolation", "session").assert_outcomes(passed=10)
    assert run.events("start") == ["5.10.262", "6.1.176"]


def test_a_marker_goes_before_the_option(run: Runner) -> None:
    source = """
        import pytest

        pytestmark = pytest.mark.isolation("module")

        def test_a(vm): pass
        def test_b(vm): pass

        @pytest.mark.isolation("test")
        def test_c(vm): pass
        """
    run(source, *ONE, "--kernelfs-isolation", "session").assert_outcomes(passed=3)
    assert len(run.events("start")) == 2


@pytest.mark.parametrize("end", ["panic", "lost", "hang", "stuck"])
def test_after_a_machine_died_or_hung_the_next_test_gets_another(run: Runner, end: str) -> None:
    source = f"""
        import pytest

        def test_a(vm): vm.run("x")

        def test_b(vm):
            with pytest.raises(Exception, match="."):
                vm.run({end!r})
            assert not vm.usable

        def test_c(vm): vm.run("x")
        """
    run(source, *ONE, "--kernelfs-isolation", "session").assert_outcomes(passed=3)
    assert len(run.events("start")) == len(run.events("destroy")) == 2


def test_a_command_that_was_ended_in_time_leaves_the_machine_usable(run: Runner) -> None:
    source = """
        import pytest
        from pytest_kernelfs.errors import GuestTimeout

        def test_a(vm):
            with pytest.raises(GuestTimeout, match="its process group was killed"):
                vm.run("slow")

        def test_b(vm): vm.run("x")
        """
    run(source, *ONE, "--kernelfs-isolation", "session").assert_outcomes(passed=2)
    assert len(run.events("start")) == 1


def test_a_machine_ends_before_the_next_kernels_begins(run: Runner) -> None:
    run("def test_a(vm): pass", *BOTH, "--kernelfs-isolation", "session")
    order = [event for event in run.events() if event.startswith(("start", "destroy"))]
    assert order == ["start 5.10.262", "destroy 5.10.262", "start 6.1.176", "destroy 6.1.176"]


def test_no_machine_is_left_when_a_run_is_interrupted(run: Runner) -> None:
    source = "def test_a(vm): raise KeyboardInterrupt\ndef test_b(vm): pass\n"
    result = run.apart(source, *ONE, "--kernelfs-isolation", "session")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert run.events("start") == run.events("destroy") == ["6.1.176"]


def test_tests_that_share_a_machine_are_marked_in_its_log(run: Runner) -> None:
    source = """
        def test_a(vm): pass

        def test_b(vm):
            marks = [arguments[0] for arguments in vm.machine.arguments("begin")]
            assert marks == [f"kernelfs: test_it.py::test_{name}[6.1.176]" for name in "ab"]
        """
    run(source, *ONE, "--kernelfs-isolation", "session").assert_outcomes(passed=2)


def test_what_a_test_held_is_of_no_use_to_the_next(run: Runner) -> None:
    source = """
        import pytest
        from pytest_kernelfs.errors import UsageError

        kept = []

        def test_a(vm, disk_factory):
            kept.extend([vm, disk_factory])

        def test_b(vm):
            with pytest.raises(UsageError, match="of the fixture 'vm' .* while its test runs"):
                kept[0].power_cut()
            with pytest.raises(UsageError, match="the test that this was made for is over"):
                kept[1](size="1M")
        """
    run(source, *ONE, "-p", "no:randomly").assert_outcomes(passed=2)
    assert len(run.events("start")) == len(run.events("destroy")) == 2
