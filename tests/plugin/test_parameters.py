"""A test that reaches a kernel runs once for each that was asked for."""

from __future__ import annotations

import pytest

from .conftest import BOTH, Runner

COLLECT = ("--collect-only", "-q")


def ids(result: pytest.RunResult) -> list[str]:
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_ids_are_the_full_versions(run: Runner) -> None:
    assert ids(run("def test_x(vm): pass", *BOTH, *COLLECT)) == ["test_x[5.10.262]", "test_x[6.1.176]"]


def test_collecting_starts_and_fetches_nothing(run: Runner) -> None:
    run("def test_x(vm): pass", *BOTH, *COLLECT)
    assert run.events("fetch") == run.events("start") == []


@pytest.mark.parametrize("fixture", ["kernel", "vm", "overlay_factory", "mine"])
def test_it_does_not_matter_how_the_test_reaches_the_kernel(run: Runner, fixture: str) -> None:
    source = f"""
        import pytest

        @pytest.fixture
        def mine(yours): pass

        @pytest.fixture
        def yours(vm): pass

        def test_x({fixture}): pass
        """
    assert ids(run(source, *BOTH, *COLLECT)) == ["test_x[5.10.262]", "test_x[6.1.176]"]


def test_an_automatic_fixture_counts_too(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture(autouse=True)
        def clean(vm): pass

        def test_x(): pass
        """
    assert len(ids(run(source, *BOTH, *COLLECT))) == 2


def test_the_fixture_is_the_kernel_of_the_test(run: Runner) -> None:
    source = """
        def test_x(kernel, vm, request):
            assert request.node.name == f"test_x[{kernel.version}]"
            assert vm.kernel is kernel
        """
    run(source, *BOTH).assert_outcomes(passed=2)


def test_only_the_kernel_may_be_asked_for_and_nothing_starts(run: Runner) -> None:
    run("def test_x(kernel): assert kernel.release.endswith('-fake')", *BOTH).assert_outcomes(passed=2)
    assert run.events("start") == []


def test_other_parameters_multiply(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("size", [1, 2])
        def test_x(vm, size): pass
        """
    found = ids(run(source, *BOTH, *COLLECT))
    assert sorted(found) == [
        "test_x[5.10.262-1]", "test_x[5.10.262-2]", "test_x[6.1.176-1]", "test_x[6.1.176-2]"
    ]  # fmt: skip


def test_all_tests_of_a_kernel_run_before_those_of_the_next(run: Runner) -> None:
    source = "def test_x(vm): pass\ndef test_y(vm): pass\ndef test_z(vm): pass\n"
    run(source, *BOTH, "--kernelfs-isolation", "session").assert_outcomes(passed=6)
    assert run.events("start") == ["5.10.262", "6.1.176"]


@pytest.mark.parametrize(
    "specs",
    [
        ("--kernel", "5.10", "--kernel", "6.1"),
        ("--kernel", "5.10,6.1"),
        ("--kernel=5.10.262, 6.1.176",),
        ("--kernel", "5.10", "--kernel", "5.10.262,6.1", "--kernel", "6.1"),
    ],
)
def test_kernels_are_named_in_any_way_and_once_each(run: Runner, specs: tuple[str, ...]) -> None:
    found = ids(run("def test_x(vm): pass", *specs, *COLLECT))
    assert found == ["test_x[5.10.262]", "test_x[6.1.176]"]


def test_kernels_keep_the_order_in_which_they_were_named(run: Runner) -> None:
    found = ids(run("def test_x(vm): pass", "--kernel", "6.1,5.10", *COLLECT))
    assert found == ["test_x[6.1.176]", "test_x[5.10.262]"]


def test_kernels_are_resolved_once(run: Runner) -> None:
    run("def test_x(vm): pass\ndef test_y(kernel): pass\n", *BOTH)
    assert run.events("resolve") == ["5.10,6.1"]


def test_without_kernels_named_there_is_a_default_which_is_told(run: Runner) -> None:
    result = run("def test_x(vm): pass")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["kernelfs: kernel 6.1.176: 6.1.176-fake (fake), *no --kernel was given"])
    assert run.events("start") == ["6.1.176"]


def test_kernels_are_told_before_the_first_test(run: Runner) -> None:
    result = run("def test_x(vm): pass", *BOTH, "--kernelfs-memory=768M", "--kernelfs-cpus=2")
    result.stdout.fnmatch_lines(
        [
            "kernelfs: kernel 5.10.262: 5.10.262-fake (fake)",
            "kernelfs: kernel 6.1.176: 6.1.176-fake (fake)",
            "kernelfs: fake machines; isolation test, memory 768M, cpus 2",
            "kernelfs: cache *",
            "collected 2 items",
        ]
    )
    assert run.events("size") == ["768M 2"] * 2


def test_only_kernels_of_selected_tests_are_fetched(run: Runner) -> None:
    run("def test_x(vm): pass", *BOTH, "-k", "5.10").assert_outcomes(passed=1, deselected=1)
    assert run.events("fetch") == ["5.10.262"]


@pytest.mark.parametrize("source", ["def test_x(vm): pass", "def test_x(): pass"])
def test_a_kernel_that_is_not_to_be_had_is_told_before_all_else(run: Runner, source: str) -> None:
    result = run(source, "--kernel", "9.9")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.errlines[0] == (
        "ERROR: kernelfs: no kernel 9.9 in Debian's suites; 'kernelfs kernels ls' lists them"
    )
    result.stdout.no_fnmatch_line("*collected*")


def test_a_malformed_kernel_is_told_in_one_line(run: Runner) -> None:
    result = run("def test_x(vm): pass", "--kernel", "six!")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len([line for line in result.errlines if line]) == 1
    assert "six!" in result.errlines[0]


def test_a_kernel_of_the_ini_file_that_is_not_to_be_had_does_not_stop_other_tests(
    run: Runner, pytester: pytest.Pytester
) -> None:
    pytester.makeini("[pytest]\nkernelfs_kernels = 9.9\n")
    run("def test_x(): pass\n").assert_outcomes(passed=1)


def test_a_kernel_of_the_ini_file_that_is_not_to_be_had_is_told_when_it_is_needed(
    run: Runner, pytester: pytest.Pytester
) -> None:
    pytester.makeini("[pytest]\nkernelfs_kernels = 9.9\n")
    result = run("def test_x(): pass\ndef test_y(vm): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: kernelfs: no kernel 9.9 in Debian's suites*"])


def test_asking_for_a_machine_by_name_works_with_one_kernel(run: Runner) -> None:
    source = "def test_x(request): assert request.getfixturevalue('vm').usable"
    run(source, "--kernel", "6.1").assert_outcomes(passed=1)
    assert run.events("start") == ["6.1.176"]


def test_asking_for_a_machine_by_name_is_an_error_with_two_kernels(run: Runner) -> None:
    result = run("def test_x(request): request.getfixturevalue('vm')", *BOTH)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*through request.getfixturevalue*name 'kernel' or 'vm' in the test's arguments"]
    )
    assert run.events("start") == []
