"""What the markers ask for is settled before anything boots."""

from __future__ import annotations

import pytest

from .conftest import BOTH, Runner


def marked(marker: str, body: str = "pass") -> str:
    return f"""
        import pytest

        @pytest.mark.{marker}
        def test_x(vm, kernel):
            {body}
        """


def test_a_kernel_that_does_not_match_is_skipped_without_booting(run: Runner) -> None:
    result = run(marked("kernel('>=6.1')"), *BOTH, "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*needs a kernel >=6.1, this is 5.10.262"])
    assert run.events("start") == ["6.1.176"]


def test_markers_of_class_and_module_hold_too(run: Runner) -> None:
    source = """
        import pytest

        pytestmark = pytest.mark.kernel("<6")

        @pytest.mark.kernel(">=6")
        class TestAll:
            def test_x(self, vm): pass

        def test_y(vm): pass
        """
    run(source, *BOTH).assert_outcomes(passed=1, skipped=3)
    assert run.events("start") == ["5.10.262"]


def test_a_marker_on_a_test_without_kernel_says_nothing(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel(">=99")
        def test_x(): pass
        """
    run(source, *BOTH).assert_outcomes(passed=1)


def test_a_known_failure_is_expected_where_it_is_known(run: Runner) -> None:
    marker = "kernel_xfail('<6', reason='syncs all')"
    result = run(marked(marker, "assert kernel.version.major == 6"), *BOTH, "-rx")
    result.assert_outcomes(passed=1, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL*5.10.262* - syncs all"])


def test_a_known_failure_elsewhere_is_a_failure(run: Runner) -> None:
    marker = "kernel_xfail('<5.10', reason='syncs all')"
    run(marked(marker, "assert False"), *BOTH).assert_outcomes(failed=2)


def test_a_known_failure_that_passes_is_told(run: Runner) -> None:
    run(marked("kernel_xfail('', reason='syncs all')"), *BOTH).assert_outcomes(xpassed=2)


@pytest.mark.parametrize("what", ["panic", "hang", "slow", "stuck"])
def test_a_panic_or_a_hang_can_be_a_known_failure(run: Runner, what: str) -> None:
    source = marked("kernel_xfail('', reason='crashes')", f"vm.run({what!r})")
    result = run(source, "--kernel", "6.1", "-rx")
    result.assert_outcomes(xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL*6.1.176* - crashes"])


def test_a_panic_in_a_fixture_can_be_a_known_failure(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture
        def ready(vm): vm.run("panic")

        @pytest.mark.kernel_xfail("", reason="crashes")
        def test_x(ready): pass
        """
    run(source, "--kernel", "6.1").assert_outcomes(xfailed=1)


@pytest.mark.parametrize(
    ("what", "outcomes"), [("vm.run('lost')", {"errors": 1}), ("vm.run('fail', check=True)", {"failed": 1})]
)
def test_what_is_not_the_kernels_fault_is_no_known_failure(
    run: Runner, what: str, outcomes: dict[str, int]
) -> None:
    source = marked("kernel_xfail('', reason='crashes')", what)
    run(source, "--kernel", "6.1").assert_outcomes(**outcomes)


MALFORMED = [
    ("kernel", "write kernel"),
    ("kernel()", "write kernel"),
    ("kernel('>=5.10', '<6')", "write kernel"),
    ("kernel(5.10)", "write kernel"),
    ("kernel('5.10')", "is malformed"),
    ("kernel('>=five')", "no kernel version"),
    ("kernel_xfail('<6')", "write kernel_xfail"),
    ("kernel_xfail(reason='x')", "write kernel_xfail"),
    ("kernel_xfail('<6', reason='')", "write kernel_xfail"),
    ("kernel_xfail('<6', reason='x', strict=True)", "write kernel_xfail"),
    ("isolation('machine')", "isolation takes one of test, class, module, session"),
    ("vm(memory='much')", "the marker vm, memory"),
    ("vm(memory='64M')", "is too little, give at least 384M"),
    ("vm(cpus=0)", "is no number from 1 to 255"),
    ("vm(cpus='2')", "is no number from 1 to 255"),
    ("vm(boot_parameters=['quiet'])", "is no line of text"),
    ("vm(disks=2)", "write vm(memory="),
    ("vm('2G')", "write vm(memory="),
    ("checks(dmesg=0)", "write checks(leaks=False)"),
    ("checks('dmesg')", "write checks(leaks=False)"),
    ("checks(everything=False)", "write checks(leaks=False)"),
    ("dmesg_allow()", "write dmesg_allow("),
    ("dmesg_allow('(')", "dmesg_allow: '('"),
    ("dmesg_allow(7)", "dmesg_allow: 7"),
    ("isolation()", "isolation takes one of test, class, module, session"),
]


@pytest.mark.parametrize(("marker", "told"), MALFORMED, ids=[marker for marker, _ in MALFORMED])
def test_a_malformed_marker_is_told_in_one_line(run: Runner, marker: str, told: str) -> None:
    result = run(marked(marker), *BOTH)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    assert line.startswith("ERROR: kernelfs: ")
    assert told in line
    assert "Traceback" not in result.stdout.str()
    assert run.events("start") == []


def test_nothing_is_fetched_for_a_malformed_marker(run: Runner) -> None:
    run(marked("kernel('5.10')"), *BOTH)
    assert run.events("fetch") == []
