"""A suite that has nothing to do with kernels does not notice the plugin."""

from __future__ import annotations

import pytest

from .conftest import BOTH, Runner

PLAIN = "def test_a(): pass\n"

TELL_MODULES = """
import sys

def pytest_unconfigure(config):
    print("loaded:", *sorted(sys.modules))
"""


def test_a_test_without_the_fixtures_runs_once_and_nothing_happens(run: Runner) -> None:
    result = run(PLAIN)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*kernel*")
    assert run.events() == []


def test_a_test_without_the_fixtures_runs_once_though_kernels_are_named(run: Runner) -> None:
    result = run(PLAIN, *BOTH)
    result.assert_outcomes(passed=1)
    assert run.events("start") == run.events("fetch") == []


def test_nothing_heavy_is_imported_for_it(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERNELFS_CACHE")
    pytester.makeconftest(TELL_MODULES)
    pytester.makepyfile(PLAIN)
    # From Python 3.14 on the debugger, which pytest loads, brings asyncio.
    plugins = ("-p", "pytest_kernelfs.plugin", "-p", "no:debugging")
    result = pytester.runpytest_subprocess(*plugins, timeout=300)
    result.assert_outcomes(passed=1)
    (line,) = (line for line in result.outlines if line.startswith("loaded:"))
    loaded = set(line.split())
    assert "pytest_kernelfs.plugin" in loaded
    heavy = (
        "rich requests urllib3 debian execnet qemu asyncio concurrent.futures click filelock hypothesis ssl"
    )
    assert not loaded & set(heavy.split())
    assert not [name for name in loaded if name.startswith(("pytest_kernelfs.k", "pytest_kernelfs.mach"))]


def test_options_are_explained_in_a_group_of_their_own(run: Runner) -> None:
    result = run(PLAIN, "--help")
    result.stdout.fnmatch_lines(
        ["tests on real kernels (pytest-kernelfs):", "*--kernel=SPEC*", "*--kernelfs-isolation=SCOPE*"]
    )
    result.stdout.fnmatch_lines(["*kernelfs_kernels (args):*"])


def test_markers_are_explained(run: Runner) -> None:
    result = run(PLAIN, "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.kernel(constraint): *", "@pytest.mark.kernel_xfail(*"])


def test_fixtures_are_explained(run: Runner) -> None:
    result = run(PLAIN, "--fixtures")
    result.stdout.fnmatch_lines(["overlay_factory -- *", "*Makes overlay mounts: *"])
    result.stdout.fnmatch_lines(["vm -- *", "*A running machine with the kernel under test."])


def test_markers_are_known_to_strict_suites(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel(">=5.10")
        @pytest.mark.kernel_xfail("<5.10", reason="slow")
        @pytest.mark.isolation("session")
        def test_a(vm): pass
        """
    run(source, "--strict-markers", *BOTH).assert_outcomes(passed=2)


def test_a_parameter_that_happens_to_be_called_kernel_is_left_alone(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("kernel", ["linear", "gaussian"])
        def test_a(kernel): assert isinstance(kernel, str)
        """
    run(source).assert_outcomes(passed=2)
    assert run.events() == []


def test_a_fixture_that_happens_to_be_called_kernel_is_left_alone(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture
        def kernel(): return "gaussian"

        def test_a(kernel): assert kernel == "gaussian"
        """
    run(source).assert_outcomes(passed=1)
    assert run.events() == []


def test_a_fixture_of_the_suite_may_stand_before_ours(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture(scope="session")
        def kernel(kernel): return kernel.release

        def test_a(kernel): assert kernel.endswith("-fake")
        """
    run(source, *BOTH).assert_outcomes(passed=2)
