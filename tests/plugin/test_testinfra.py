"""Beside pytest-testinfra's own plugin: its ``host`` stays its own until a suite says otherwise."""

from __future__ import annotations

from .conftest import BOTH, Runner

LOADED = ("-p", "testinfra.plugin")
RECIPE = """
    import pytest

    @pytest.fixture
    def host(vm): return vm.host
    """


def test_its_host_is_not_ours(run: Runner) -> None:
    source = "def test_a(host): assert host.backend.get_pytest_id() == 'local'"
    result = run(source, "-v", *LOADED)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_a?local? PASSED*"])
    assert run.events() == []


def test_a_host_of_the_suite_follows_the_kernels(run: Runner) -> None:
    source = f"""{RECIPE}
    def test_a(host, kernel):
        assert host.backend.get_pytest_id() == f"kernelfs://{{kernel.version}}"
        assert host.check_output("true") == "mkfs.xfs version 6.1.0"
    """
    result = run(source, "-v", *LOADED, *BOTH)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test_a?5.10.262? PASSED*", "*::test_a?6.1.176? PASSED*"])


def test_hosts_of_the_command_line_are_not_asked_then(run: Runner) -> None:
    source = f"""{RECIPE}
    testinfra_hosts = ["docker://nowhere"]

    def test_a(host): assert "kernelfs://" in repr(host)
    """
    run(source, *LOADED, "--hosts", "ssh://nowhere,local://", *BOTH).assert_outcomes(passed=2)


def test_both_hosts_in_one_run(run: Runner) -> None:
    source = """
    import pytest

    @pytest.fixture
    def guest(vm): return vm.host

    def test_a(host, guest): assert {host.backend.NAME, guest.backend.NAME} == {"local", "kernelfs"}
    """
    run(source, *LOADED, *BOTH).assert_outcomes(passed=2)


def test_without_its_plugin_a_machine_has_a_host(run: Runner) -> None:
    source = f"""{RECIPE}
    def test_a(host): assert host.run("true").succeeded
    """
    run(source).assert_outcomes(passed=1)


def test_what_its_modules_raise_is_a_failure(run: Runner) -> None:
    source = f"""{RECIPE}
    def test_a(host): host.check_output("fail")
    def test_b(host): host.run("slow", timeout=5)
    """
    result = run(source, *LOADED)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*Unexpected exit code 1 *", "*'slow' did not end within 5 s*"])


def test_a_missing_testinfra_is_an_error(run: Runner) -> None:
    source = """
    import sys
    import pytest

    def test_a(vm, monkeypatch):
        monkeypatch.delitem(sys.modules, "pytest_kernelfs.machines.testinfra")
        monkeypatch.setitem(sys.modules, "testinfra.backend.base", None)
        vm.host
    """
    result = run(source)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pip install 'pytest-kernelfs[[]testinfra[]]'*"])
