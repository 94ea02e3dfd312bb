"""What is gathered of a machine in trouble: everything while it answers, and enough when it does not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_kernelfs import VM, Probes, Xfs
from pytest_kernelfs.bundle import evidence
from pytest_kernelfs.bundle.evidence import DEADLINE_S, DESCRIPTIONS, Evidence, gather
from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, KernelPanic

# The host adds these itself.
BY_THE_HOST = {"failure.txt", "tools.txt", "host.txt", "measurements.json"}
FROM_OUTSIDE = {"console.log", "sysrq-w.txt", "sysrq-l.txt", "sysrq-t.txt", "kernel-config.txt"}
# On a busy host all takes longer, and it may be late to notice that the time is over.
PATIENT_S = 120.0
LATE_S = 60.0


def _freeze_everything() -> None:
    """Freeze all processes, and the one that was asked to do it last."""
    group = Path("/sys/fs/cgroup/ice")
    group.mkdir()
    others = [path.name for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid())]
    for pid in [*others, str(os.getpid())]:
        try:
            (group / "cgroup.procs").write_text(pid)
        except OSError:
            continue  # the kernel's own threads stay where they are
    (group / "cgroup.freeze").write_text("1")


_FORK_BOMB = """
import os
open("/proc/sys/kernel/pid_max", "w").write("400")
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""

# In huge pages, of which an emulated processor takes many more in a second; private ones: those that are
# shared outlive the process for a while.
_EAT_ALL = """
import mmap
ones, kept = b"1" * (8 << 20), []
while True:
    kept.append(mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    kept[-1].madvise(mmap.MADV_HUGEPAGE)
    kept[-1].write(ones)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key may take all the time there is."""
    keys = tuple((key, name, what, PATIENT_S) for key, name, what, _ in evidence._SYSRQ)
    monkeypatch.setattr(evidence, "_SYSRQ", keys)


def _gathered(vm: VM) -> Evidence:
    start = time.monotonic()
    found = gather(vm, PATIENT_S)
    assert time.monotonic() - start < PATIENT_S + LATE_S
    return found


def test_all_is_there_while_the_machine_answers(
    vm: VM, xfs: Xfs, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "_GUEST_S", PATIENT_S / 2)
    monkeypatch.setattr(evidence, "_CALL_S", PATIENT_S)
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    vm.run("echo '<4>careful now' > /dev/kmsg", check=True)
    vm.run(f"(echo x > {xfs.path}/file) >/dev/null 2>&1 &")
    (writer,) = probes.until_stuck()
    found = _gathered(vm)
    assert set(found.files) == set(DESCRIPTIONS) - BY_THE_HOST
    assert found.problems == {}
    assert found.blocked is not None
    assert f"sh (pid {writer.pid}, tid {writer.tid}) waits in percpu_rwsem_wait" in found.blocked
    assert found.loud is not None
    assert [line for line in found.loud if line.endswith("careful now")]
    assert "mnt_want_write" in found.files["blocked-tasks.txt"]
    assert "mnt_want_write" in found.files["sysrq-w.txt"]
    assert "task:init" in found.files["sysrq-t.txt"]
    assert "Linux version" in found.files["dmesg.txt"]
    assert f" {xfs.path} " in found.files["mounts.txt"]
    assert "cgroup.procs: 1 2 " in found.files["cgroups.txt"]
    assert found.files["processes.txt"].count("percpu_rwsem_wait") >= (0 if "5.10" in str(vm.kernel) else 1)
    vm.run(["fsfreeze", "-u", xfs.path], check=True)


def test_a_panic_leaves_its_console_at_once(vm: VM) -> None:
    with pytest.raises(KernelPanic):
        vm.run("echo c > /proc/sysrq-trigger; sleep 100")
    found = _gathered(vm)
    assert found.seconds < DEADLINE_S
    assert "sysrq triggered crash" in found.files["console.log"]
    assert set(found.files) == {"console.log", "kernel-config.txt"}
    assert found.problems["sysrq-w.txt"] == "the kernel panicked"


@pytest.mark.kernel("<5.11")  # for the newest there is a whole run
def test_a_frozen_user_space_is_told_of_from_outside(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_CALL_S", 3.0)
    with pytest.raises(GuestTimeout):
        vm.call(_freeze_everything, timeout=10)
    found = _gathered(vm)
    assert set(found.files) == FROM_OUTSIDE
    assert "did not answer" in found.problems["all that is read in the guest"]
    assert "task:init" in found.files["sysrq-t.txt"]
    assert found.files["sysrq-t.txt"].isascii()


def _run_as_long_as_it_goes(vm: VM) -> None:
    while True:
        vm.run(["true"], timeout=5)


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.checks(dmesg=False, leaks=False, taint=False)
def test_a_fork_bomb_ends_in_time(vm: VM) -> None:
    vm.put(_FORK_BOMB.encode(), "/run/bomb.py")
    vm.run("setsid python3 /run/bomb.py > /dev/null 2>&1 < /dev/null &", check=True)
    with pytest.raises((GuestTimeout, GuestCommandError)):
        _run_as_long_as_it_goes(vm)
    found = _gathered(vm)
    assert set(found.files) >= FROM_OUTSIDE
    assert found.files["sysrq-t.txt"].count("python3") > 100


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.checks(dmesg=False)
def test_who_eats_all_memory_is_killed_before_the_agent(vm: VM) -> None:
    eater = vm.run(["python3", "-c", _EAT_ALL], timeout=600)
    assert eater.rc == -9
    assert vm.usable
    scores = vm.run("cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj").stdout
    assert scores.split() == ["0", "-999"]
    found = _gathered(vm)
    assert "Out of memory" in found.files["dmesg.txt"]
    assert "meminfo.txt" in found.files
