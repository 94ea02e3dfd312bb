"""Gathering never fails, and goes round what does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_kernelfs.bundle.evidence import DEADLINE_S, gather
from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, KernelMisbehaved, KernelPanic
from pytest_kernelfs.machines.vm import VM
from tests.fake_machine import FakeMachine

BLOCKED = {"comm": "sync", "pid": 7, "tid": 7, "wchan": "wait", "syscall": "", "stack": []}
TOLD = {
    "files": {"dmesg.txt": "4 [ 1.0] hm\n", "meminfo.txt": "MemTotal: 1\n"},
    "problems": {"slabinfo.txt": "it was not read within 5 s"},
    "blocked": [BLOCKED],
    "loud": ["[ 1.0] hm"],
}
SYSRQ_W = """\
[  1.0] sysrq: Show Blocked State
[  1.0] task:kworker/0:1     state:D stack:    0 pid:   11 ppid:     2 flags:0x00004000
[  1.0] Call Trace:
[  1.0] task:sync            state:D stack:0     pid:88    tgid:88    ppid:1      task_flags:0x400100
"""


def machine(**answers: Any) -> VM:
    return VM(FakeMachine(**{"collect": TOLD, "sysrq": lambda keys: f"pressed {keys}", **answers}))


def test_what_answers_is_asked_for_all() -> None:
    found = gather(machine())
    assert found.files["meminfo.txt"] == "MemTotal: 1\n"
    assert [found.files[f"sysrq-{key}.txt"] for key in "lwt"] == ["pressed l", "pressed w", "pressed t"]
    assert found.problems == {
        "slabinfo.txt": "it was not read within 5 s",
        "kernel-config.txt": "this kernel came without its config",
    }
    assert found.blocked == ["sync (pid 7, tid 7) waits in wait"]
    assert found.loud == ["[ 1.0] hm"]


def test_the_guest_is_asked_once_with_a_deadline() -> None:
    vm = machine()
    gather(vm)
    fake = vm.machine
    assert isinstance(fake, FakeMachine)
    assert fake.names.count("collect") == 1
    assert sum(fake.timeouts[:1]) < DEADLINE_S
    assert max(fake.timeouts) <= DEADLINE_S


def test_a_silent_guest_is_asked_from_outside() -> None:
    late = GuestTimeout("the guest did not answer a call of collect within 8 s")
    found = gather(machine(collect=late, sysrq=lambda keys: SYSRQ_W if keys == "w" else "x"))
    assert found.problems["all that is read in the guest"] == str(late)
    assert found.blocked == ["kworker/0:1 (pid 11)", "sync (pid 88)"]
    assert "sysrq-t.txt" in found.files


def test_a_panic_ends_it_at_once() -> None:
    vm = machine(collect=KernelPanic("kernel 6.1 panicked:\n[ 1.0] Kernel panic"))
    found = gather(vm)
    assert found.problems["all that is read in the guest"] == "kernel 6.1 panicked"
    assert found.problems["sysrq-w.txt"] == "the kernel panicked"
    assert isinstance(vm.machine, FakeMachine)
    assert "sysrq" not in vm.machine.names
    assert found.blocked is None


def test_a_kernel_that_takes_no_key_is_asked_once() -> None:
    vm = machine(sysrq=GuestTimeout("the kernel took no sysrq key"))
    found = gather(vm)
    assert isinstance(vm.machine, FakeMachine)
    assert vm.machine.names.count("sysrq") == 1
    assert {found.problems[f"sysrq-{key}.txt"] for key in "lwt"} == {"the kernel took no sysrq key"}


def test_without_time_left_nothing_more_is_asked() -> None:
    found = gather(machine(), deadline=0.1)
    assert found.problems["sysrq-t.txt"] == "there was no time left for it"


@pytest.mark.parametrize(
    "trouble",
    [KernelMisbehaved("gone"), InfrastructureError("gone"), RuntimeError("gone"), OSError("gone"), None, {}],
    ids=repr,
)
def test_nothing_that_happens_meanwhile_gets_out(trouble: object) -> None:
    found = gather(machine(collect=trouble, sysrq=trouble))
    assert "all that is read in the guest" in found.problems


def test_the_console_up_to_our_own_keys_stands_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    console = "[ 1.0] XFS: bad\n\n[ 2.0] sysrq: Changing Loglevel\n[ 2.0] task:x\n"
    read: Callable[[FakeMachine], str] = lambda _self: console  # noqa: E731
    monkeypatch.setattr(FakeMachine, "console", read)
    assert gather(machine(collect=GuestTimeout("late"))).loud == ["[ 1.0] XFS: bad"]


def test_a_machine_that_does_not_answer_for_its_programs_is_asked_no_more() -> None:
    vm = machine(told=GuestTimeout("late"))
    found = gather(vm, programs=[("mkfs.xfs", "-V")])
    assert found.problems["tools.txt"] == "late"
    assert not vm.usable
    assert found.files["meminfo.txt"] == "MemTotal: 1\n"
