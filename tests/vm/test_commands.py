"""Commands in the guest: what they give, and how they end."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM
from pytest_kernelfs.errors import GuestCommandError, GuestTimeout


def test_the_machine_runs_the_kernel_under_test(vm: VM) -> None:
    assert vm.run("uname -r", check=True).stdout.strip() == vm.kernel.release
    assert str(vm.kernel.version) in vm.run(["uname", "-v"]).stdout


def test_status_output_and_errors_are_kept_apart(vm: VM) -> None:
    result = vm.run("echo out; echo err >&2; exit 3")
    assert (result.rc, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert result.failed
    assert 0 < result.duration < 30


def test_a_command_that_does_not_exist_is_127(vm: VM) -> None:
    assert vm.run(["no-such-program"]).rc == 127
    assert vm.run("no-such-program").rc == 127


def test_check_raises_with_what_the_command_said(vm: VM) -> None:
    with pytest.raises(GuestCommandError, match="failed with 2") as caught:
        vm.run("echo no luck >&2; exit 2", check=True)
    assert "no luck" in str(caught.value)
    assert str(vm.kernel.version) in str(caught.value)


def test_input_folder_and_environment(vm: VM) -> None:
    result = vm.run("cat; pwd; echo $WORD", input="hello\n", cwd="/proc", env={"WORD": "said"}, check=True)
    assert result.stdout == "hello\n/proc\nsaid\n"


def test_a_command_that_hangs_goes_with_all_its_children(vm: VM) -> None:
    said = ""
    # On a busy host, it may not have begun when a short time is over.
    for timeout in (0.5, 5.0, 50.0):
        with pytest.raises(GuestTimeout, match=f"did not end within {timeout:g} s") as caught:
            vm.run("echo before; sleep 12345 & sleep 12345", timeout=timeout)
        said = str(caught.value)
        if "it had printed:\nbefore" in said:
            break
    assert "it had printed:\nbefore" in said
    vm.run("while pgrep -f 'sleep 1234[5]'; do sleep 0.05; done", check=True)
    assert vm.usable


def test_much_output_arrives_whole(vm: VM) -> None:
    result = vm.run("seq 1 200000", check=True)
    assert result.stdout.splitlines()[-1] == "200000"
    assert len(result.stdout.splitlines()) == 200000
