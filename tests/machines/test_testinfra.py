"""testinfra's Host on our channel: what reaches the guest, and what comes back; no machine."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestTimeout, KernelPanic, UsageError
from pytest_kernelfs.machines.vm import VM
from tests.fake_machine import FakeMachine, ran


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def vm(machine: FakeMachine) -> VM:
    return VM(machine)


def sent(machine: FakeMachine) -> list[str]:
    """The commands that reached the guest."""
    return [str(arguments[0]) for arguments in machine.arguments("run")]


def with_users(*, sudo: bool) -> FakeMachine:
    """A machine that has a sudo for root, or none."""
    return FakeMachine(run=lambda command, *_: ran(0 if sudo or command != "sudo -n true" else 127))


def test_a_command_goes_through_the_shell_of_the_guest(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(255, "out\n", "err\n")
    done = vm.host.run("ls -d %s | wc", "/a b;c")
    assert sent(machine) == ["ls -d '/a b;c' | wc"]
    assert (done.rc, done.stdout, done.stderr, done.failed) == (255, "out\n", "err\n", True)
    assert done.command == b"ls -d '/a b;c' | wc"


def test_without_arguments_a_command_stays_as_it_is(vm: VM, machine: FakeMachine) -> None:
    vm.host.run("stat -c %U /etc")
    assert sent(machine) == ["stat -c %U /etc"]


def test_what_is_no_text_arrives_as_it_is(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = {**ran(), "stdout": b"a\xffb"}
    done = vm.host.run("cat")
    assert done.stdout_bytes == b"a\xffb"
    with pytest.raises(UnicodeDecodeError):
        _ = done.stdout


def test_text_beyond_ascii_needs_no_further_command(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(0, "käse")
    assert vm.host.run("cat %s", "brötchen").stdout == "käse"
    assert sent(machine) == ["cat 'brötchen'"]


def test_a_command_has_a_deadline(vm: VM, machine: FakeMachine) -> None:
    vm.host.run("make")
    vm.host.run("make", timeout=5)
    assert [arguments[1] for arguments in machine.arguments("run")] == [60, 5]
    machine.answers["run"] = ran(None)
    with pytest.raises(GuestTimeout, match="'make' did not end within 5 s"):
        vm.host.run("make", timeout=5)


def test_a_panic_goes_up_as_it_is(vm: VM, machine: FakeMachine) -> None:
    machine.answers["run"] = KernelPanic("it panicked")
    with pytest.raises(KernelPanic):
        vm.host.exists("ls")


def test_modules_are_there(vm: VM, machine: FakeMachine) -> None:
    def behave(command: str, *_: Any) -> dict[str, Any]:
        return ran(stdout={"uname -s": "Linux\n", "stat -Lc %s /etc/passwd": "71\n"}.get(command, ""))

    machine.answers["run"] = behave
    host: Any = vm.host
    assert host.file("/etc/passwd").size == 71
    assert "cat /etc/os-release" in sent(machine)


def test_it_tells_which_kernel_it_is(vm: VM) -> None:
    assert repr(vm.host) == "<testinfra.host.Host kernelfs://6.1.176>"


def test_it_keeps_what_it_found_out_until_the_power_is_cut(vm: VM) -> None:
    before = vm.host
    assert vm.host is before
    vm.cutter = lambda *_: FakeMachine("5.10.262")
    vm.power_cut()
    assert vm.host is not before
    assert vm.host.backend.get_pytest_id() == "kernelfs://5.10.262"


def test_where_there_is_sudo_it_is_used() -> None:
    machine = with_users(sudo=True)
    host: Any = VM(machine).host
    with host.sudo():
        host.run("whoami")
        with host.sudo("nobody"):
            host.run("cat %s", "/a b")
    host.run("whoami")
    inner = "sudo -u nobody /bin/sh -c " + shlex.quote("cat '/a b'")
    assert sent(machine) == [
        "sudo -n true",
        "sudo /bin/sh -c whoami",
        "sudo /bin/sh -c " + shlex.quote(inner),
        "whoami",
    ]


def test_without_sudo_root_becomes_somebody_by_itself() -> None:
    machine = with_users(sudo=False)
    host: Any = VM(machine).host
    with host.sudo("nobody"):
        host.run("echo %s", "it's")
    words = shlex.split(sent(machine)[-1])
    assert words[:3] == ["setpriv", "--reuid=nobody", "--regid=$(id -g -- nobody)"]
    assert words[-3:] == ["/bin/sh", "-c", "echo " + shlex.quote("it's")]
    with host.sudo():
        host.run("whoami")
    assert "--reuid=root" in sent(machine)[-1]


def test_without_testinfra_it_is_told_how_to_get_it(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pytest_kernelfs.machines.testinfra", raising=False)
    monkeypatch.setitem(sys.modules, "testinfra.backend.base", None)
    with pytest.raises(UsageError, match=r"pip install 'pytest-kernelfs\[testinfra\]'"):
        _ = vm.host


def test_the_plugin_and_the_machine_do_not_need_testinfra() -> None:
    code = (
        "import sys, pytest_kernelfs.plugin, pytest_kernelfs.machines.vm; print('testinfra' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
