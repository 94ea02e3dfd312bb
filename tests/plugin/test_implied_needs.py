"""A test of a storage backend needs what that is made of, without a marker."""

from __future__ import annotations

import pytest

from .conftest import Runner

ONE = ("--kernel", "6.1", "-rs", "-p", "no:randomly")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has every program."""
    monkeypatch.setattr("pytest_kernelfs.tools.find", lambda name: f"/usr/sbin/{name}")


@pytest.mark.usefixtures("programs")
def test_each_backend_has_its_needs_probed(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("storage_backend", ["btrfs", "overlay-xfs"], indirect=True)
        def test_it(storage_backend): pass
        """
    run(source, *ONE)
    assert set(run.events("probe")) == {f"6.1.176 filesystem:{name}" for name in ("btrfs", "overlay", "xfs")}


@pytest.mark.usefixtures("programs")
def test_a_backend_that_the_kernel_lacks_is_skipped_with_its_reason(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("storage_backend", ["thin-ext4"], indirect=True)
        def test_it(storage_backend): pass
        """
    result = run(source, *ONE)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py:*the module dm_thin_pool cannot be known*"])
    run(source, *ONE, "--kernelfs-require").assert_outcomes(errors=1)


def test_a_host_without_the_tools_is_told_of(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kernelfs.tools.find", lambda name: None)
    result = run("def test_it(storage_backend): pass", *ONE)
    result.assert_outcomes(skipped=5)
    result.stdout.fnmatch_lines(["SKIPPED*machines lack it: the program 'mkfs.btrfs'*"])
    assert run.events("start") == []


def test_a_backend_that_does_not_exist_ends_the_run(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("storage_backend", ["aufs"], indirect=True)
        def test_it(storage_backend): pass
        """
    result = run(source, *ONE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it*there is no storage backend 'aufs'; there are overlay-xfs,*"])


def test_parameters_and_fixtures_of_the_tests_own_need_nothing(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("storage_backend", ["mine"])
        def test_parameter(vm, storage_backend): assert storage_backend == "mine"

        class TestFixture:
            @pytest.fixture(params=["own"])
            def storage_backend(self, request):
                return request.param

            def test_fixture(self, vm, storage_backend): assert storage_backend == "own"
        """
    run(source, *ONE).assert_outcomes(passed=2)
