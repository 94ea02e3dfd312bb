"""Why a machine died, out of consoles as kernels print them."""

from __future__ import annotations

import pytest

from pytest_kernelfs.machines.verdict import panic_text, shut_down_text, tail

HEALTHY = """\
[    0.000000] Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org)
[    0.412345] Run /init as init process
[    1.123456] kernelfs: init is ready
[    1.523456] kernelfs: tests/test_a.py::test_x[6.1.176]
"""
SYSRQ = """\
[   12.345678] sysrq: Trigger a crash
[   12.346789] Kernel panic - not syncing: sysrq triggered crash
[   12.347890] CPU: 0 PID: 88 Comm: python3 Not tainted 6.1.0-50-cloud-amd64 #1  Debian 6.1.176-1
[   12.349012] Call Trace:
[   12.349123]  <TASK>
[   12.350234]  dump_stack_lvl+0x44/0x5c
[   12.351345]  panic+0x118/0x2ed
[   12.352456] Kernel Offset: 0x2e000000 from 0xffffffff81000000
[   12.353567] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---
"""
OOPS = """\
[   20.000001] XFS (vdb): Mounting V5 Filesystem
[   20.100001] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   20.100002] #PF: supervisor read access in kernel mode
[   20.100003] Oops: 0000 [#1] PREEMPT SMP PTI
[   20.100004] CPU: 0 PID: 101 Comm: umount Not tainted 5.10.0-35-cloud-amd64 #1
[   20.100005] RIP: 0010:ovl_sync_fs+0x1c/0x90 [overlay]
[   20.100006] Kernel panic - not syncing: Fatal exception
[   20.100007] Kernel Offset: disabled
"""


def test_a_healthy_console_tells_of_no_panic() -> None:
    assert panic_text(HEALTHY) is None
    assert panic_text("") is None


def test_a_warning_is_no_panic() -> None:
    assert (
        panic_text("[ 1.0] WARNING: CPU: 0 PID: 1 at fs/x.c:1\n[ 1.1] BUG: sleeping function called") is None
    )


def test_a_crash_on_request_is_told_from_its_cause_to_its_end() -> None:
    text = panic_text(HEALTHY + SYSRQ)
    assert text == SYSRQ.rstrip("\n")


def test_an_oops_is_told_from_the_bug_on() -> None:
    text = panic_text(HEALTHY + OOPS)
    assert text is not None
    lines = text.splitlines()
    assert "BUG: kernel NULL pointer dereference" in lines[0]
    assert "ovl_sync_fs" in text
    assert any(line.endswith("Kernel panic - not syncing: Fatal exception") for line in lines)


def test_the_trace_behind_a_panic_belongs_to_it() -> None:
    text = panic_text(
        "[1.0] sysrq: Trigger a crash\n[1.1] Kernel panic - not syncing: x\n[1.2] Call Trace:\n[1.2]  f"
    )
    assert text is not None
    assert text.splitlines()[-2:] == ["[1.2] Call Trace:", "[1.2]  f"]


def test_a_hung_task_is_the_cause_of_its_panic() -> None:
    hung = "[9.0] INFO: task mount:7 blocked for more than 120 seconds.\n[9.1] Kernel panic - not syncing: x"
    assert panic_text(HEALTHY + hung) == hung


def test_a_panic_without_a_known_cause_is_told_alone() -> None:
    line = "[    0.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    assert panic_text(f"[    0.8] List of all partitions:\n{line}\n") == line


def test_a_bug_long_before_the_panic_is_not_its_cause() -> None:
    chatter = "".join(f"[   30.{number:06}] chatter\n" for number in range(200))
    text = panic_text(OOPS.replace("Kernel panic", "Kernel worry") + chatter + SYSRQ)
    assert text is not None
    assert text.startswith("[   12.345678] sysrq: Trigger a crash")


def test_a_long_story_keeps_its_beginning_and_its_end() -> None:
    frames = "".join(f"[   20.2]  frame{number}+0x1/0x2\n" for number in range(100))
    head, kept, rest = OOPS.partition("[   20.100006]")
    text = panic_text(head + frames + kept + rest)
    assert text is not None
    lines = text.splitlines()
    assert "BUG:" in lines[0]
    assert any("Kernel panic" in line for line in lines)
    assert len(lines) < 45
    left_out = next(line for line in lines if line.startswith("... "))
    told = len((head + frames + kept + rest).splitlines()) - 1  # without the line before the oops
    assert told - int(left_out.split()[1]) == len(lines) - 1


def test_the_last_of_several_panics_counts() -> None:
    first = "[ 1.0] Kernel panic - not syncing: first\n"
    text = panic_text(first + "x\n" * 200 + SYSRQ)
    assert text is not None
    assert "first" not in text


def test_the_tail_is_the_last_lines_that_say_something() -> None:
    assert tail("one\n\ntwo\n   \nthree\n", 2) == "  two\n  three"


def test_an_empty_console_is_told_to_be_empty() -> None:
    assert tail("\n \n") == "  (the console is empty)"


@pytest.mark.parametrize(
    "line",
    [
        "reboot: Restarting system",
        "reboot: Power down",
        "reboot: System halted",
        "sysrq: Resetting",
        "sysrq: Power Off",
        "kexec_core: Starting new kernel",
    ],
)
def test_the_end_that_somebody_asked_for_is_told(line: str) -> None:
    text = shut_down_text(f"{HEALTHY}[ 9.0] {line}\n[    0.000000] and what comes up after it\n")
    assert text is not None
    assert text.splitlines()[-1].endswith(line)
    assert shut_down_text(HEALTHY) is None
