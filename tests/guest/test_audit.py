"""What tells of trouble in a kernel's log."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pytest_kernelfs.guest import audit, holders, inventory, kmsg, references


def record(text: str, level: int = 4, seq: int = 0) -> dict[str, Any]:
    return {"seq": seq, "level": level, "seconds": 1.0, "text": text}


def told(
    lines: list[tuple[int, str]], allowed: Sequence[str] = (), also: Sequence[str] = ()
) -> list[list[str]]:
    """What is found in these lines, each with its level: the stories."""
    found = audit.bad_records([record(text, level) for level, text in lines], [*allowed], also)
    return [[one["text"] for one in story] for story in found]


def texts(lines: list[str], *allowed: str) -> list[list[str]]:
    return told([(4, line) for line in lines], list(allowed))


@pytest.mark.parametrize(
    "line",
    [
        "kernel BUG at fs/xfs/xfs_message.c:102!",
        "WARNING: CPU: 0 PID: 12 at fs/inode.c:300 drop_nlink+0x2a/0x40",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "Oops: 0000 [#1] SMP PTI",
        "divide error: 0000 [#1] SMP NOPTI",
        "invalid opcode: 0000 [#2] PREEMPT SMP NOPTI",
        "WARNING: possible recursive locking detected",
        "general protection fault: 0000 [#1] SMP",
        "BUG kmalloc-64 (Not tainted): Objects remaining in kmalloc-64 on __kmem_cache_shutdown()",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)",
        "UBSAN: shift-out-of-bounds in fs/f2fs/super.c:1",
        "INFO: task dd:123 blocked for more than 120 seconds.",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [dd:1]",
        "XFS (vda): Metadata corruption detected: Corruption of in-memory data",
        "XFS (vda): log I/O error -5, metadata I/O error in xlog",
        "XFS (dm-0): Filesystem has been shut down due to log error: Shutting down filesystem",
        "EXT4-fs error (device loop0): ext4_lookup:1728: inode #2: comm ls: deleted inode referenced",
        "Buffer I/O error on dev dm-0, logical block 17, lost async page write",
        "loop0: writeback error on inode 132, offset 0, sector 176",
        "Aborting journal on device dm-0-8.",
        "overlayfs: upperdir is in-use as upperdir/workdir of another mount",
        "VFS: Busy inodes after unmount of loop0. Self-destruct in 5 seconds.  Have a nice day...",
        "VFS: Busy inodes after unmount of loop0 (xfs)",
        "VFS: Close: file count is 0",
        "kmem_cache_destroy xfs_ili: Slab cache still has objects",
        "EXT4-fs (dm-0): Inode 12 (00000000618192a0): orphan list check failed!",
        "EXT4-fs (dm-0): inode 12 (00000000618192a0): inode tracked as orphan!",
        "BTRFS: buffer leak start 30408704 len 16384 refs 2 bflags 1 owner 5",
    ],
)
def test_lines_of_trouble_are_found(line: str) -> None:
    assert [story[0] for story in texts(["all is well", line, "and after"])] == [line]


@pytest.mark.parametrize(
    "line",
    [
        "XFS (vda): Mounting V5 Filesystem",
        "EXT4-fs (loop0): mounted filesystem with ordered data mode",
        "xfs filesystem being mounted at /mnt/x supports timestamps until 2038 (0x7fffffff)",
        "WARNING: Reset corrupted AGFL on AG 0. 4 blocks leaked.",
        "BUG: MAX_LOCKDEP_CHAIN_HLOCKS too low!",
        "operation not supported error, dev loop0, sector 0 op 0x9:(WRITE_ZEROES)",
        "EXT4-fs (dm-0): 1 orphan inode deleted",
        "VFS: Mounted root (ext4 filesystem) readonly on device 254:0.",
        "DEBUGGING: nothing",
    ],
)
def test_lines_of_a_healthy_kernel_are_not(line: str) -> None:
    assert texts([line]) == []


def test_what_is_loud_is_trouble_whatever_it_says() -> None:
    assert audit.bad_records([record("something new", level=2)], [])
    assert not audit.bad_records([record("something new", level=3)], [])


def test_further_patterns_count_unless_they_are_allowed() -> None:
    line = record("ext4: inode 7 is odd")
    assert audit.bad_records([line], [], ["inode .* is odd"]) == [[line]]
    assert audit.bad_records([line], ["inode 7"], ["inode .* is odd"]) == []


def test_a_trace_is_told_with_its_cause_and_once() -> None:
    lines = ["BUG: kernel NULL pointer", "#PF: write", "Oops: 0002 [#1]", "---[ end trace 0 ]---"]
    assert texts([*lines, "afterwards"]) == [lines]


def test_what_is_allowed_is_left_out_with_its_trace() -> None:
    lines = ["BUG: known at x", "#PF: write", "Oops: 0002 [#1]", "---[ end trace 0 ]---", "Oops: other"]
    assert texts(lines, "at x$") == [["Oops: other"]]


def test_what_is_allowed_hides_no_other_trouble() -> None:
    lines = ["WARNING: foreseen", "hello", "EXT4-fs error (device vda)", "BUG: new"]
    assert texts(lines, "foreseen$") == [["EXT4-fs error (device vda)"], ["BUG: new"]]


def test_what_is_allowed_hides_nothing_that_is_louder_or_asked_for() -> None:
    lines = [
        (4, "myfs: WARNING: forcing recovery"),
        (4, "myfs: recovery goes on"),
        (2, "myfs: inode 12 lost"),
        (6, "myfs: damaged tree"),
    ]
    assert told(lines, ["WARNING: forcing"]) == [["myfs: inode 12 lost"]]
    assert told([*lines[:2], lines[3]], ["WARNING: forcing"], ["damaged tree"]) == [["myfs: damaged tree"]]
    for dies in ("divide error: 0000 [#1] SMP", "Oops: divide error: 0000 [#1] SMP"):
        assert told([*lines[:2], (4, dies)], ["WARNING: forcing"]) == [[dies]]
    hung = [
        (3, "INFO: task dd:12 blocked for more than 120 seconds."),
        (3, '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.'),
        (6, "task:dd              state:D stack:    0 pid:   12 ppid:     1 flags:0x00004000"),
        (6, "Call Trace:"),
    ]
    failed = [
        (1, "XFS (vda): log I/O error -5"),
        (1, "XFS (vda): Filesystem has been shut down due to log error (0x2)."),
    ]
    assert told(hung, ["blocked for more"]) == []
    assert told([*hung, *failed], ["blocked for more"]) == [[text] for _level, text in failed]


# Levels as in arch/x86/mm/fault.c, lib/bug.c, kernel/panic.c and mm/memory.c.
TRACES = {
    "oops": [
        (1, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
        (1, "#PF: supervisor write access in kernel mode"),
        (1, "#PF: error_code(0x0002) - not-present page"),
        (6, "PGD 0 P4D 0 "),
        (4, "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI"),
        (4, "CPU: 0 UID: 0 PID: 123 Comm: mount Not tainted 6.12.117 #1"),
        (4, "RIP: 0010:fill_super+0x12/0x90"),
        (4, "---[ end trace 0000000000000000 ]---"),
    ],
    "BUG": [
        (2, "kernel BUG at fs/super.c:661!"),
        (4, "Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
        (4, "RIP: 0010:generic_shutdown_super+0x11a/0x120"),
        (4, "---[ end trace 0000000000000000 ]---"),
    ],
    "BUG of older kernels": [
        (2, "kernel BUG at fs/super.c:661!"),
        (4, "invalid opcode: 0000 [#1] SMP NOPTI"),
        (4, "RIP: 0010:generic_shutdown_super+0x11a/0x120"),
        (4, "---[ end trace aa51c5d5599b993a ]---"),
    ],
    "division by zero in older kernels": [
        (4, "divide error: 0000 [#1] SMP NOPTI"),
        (4, "RIP: 0010:fill_super+0x12/0x90"),
        (4, "---[ end trace aa51c5d5599b993a ]---"),
    ],
    "WARN": [
        (4, "WARNING: CPU: 0 PID: 12 at fs/inode.c:300 drop_nlink+0x2a/0x40"),
        (4, "Modules linked in: xfs"),
        (4, "RIP: 0010:drop_nlink+0x2a/0x40"),
        (4, "---[ end trace 0000000000000000 ]---"),
    ],
    "bad page table": [
        (1, "BUG: Bad page map in process dd  pte:8000000000000007 pmd:01234067"),
        (4, "page:00000000e24cde71 refcount:1 mapcount:-1 mapping:0000000000000000"),
        (1, "addr:00007f0000000000 vm_flags:00100073 anon_vma:0000000000000000"),
        (4, "Call Trace:"),
    ],
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_a_trace_of_the_kernel_is_one_story_however_loud_its_lines_are(trace: list[tuple[int, str]]) -> None:
    assert told(trace) == [[text for _level, text in trace]]
    assert told(trace, [trace[0][1][:12]]) == []


def test_a_flood_is_cut_short() -> None:
    assert len(texts(["EXT4-fs error (device loop0)"] * 1000)) == 20


@pytest.fixture(autouse=True)
def without_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not everybody may read the host's."""
    monkeypatch.setattr(audit, "_log", -1)
    monkeypatch.setattr(kmsg, "open_at_end", lambda: -1)


def states(*following: dict[str, int]) -> Iterator[dict[str, int]]:
    yield from following
    while True:
        yield following[-1]


def test_only_what_came_in_addition_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    mount, loop = "mount: tmpfs on /mnt (from none)", "loop device: /dev/loop0 on /a"
    seen = states({mount: 1, "cgroup: /a": 1}, {mount: 2, loop: 1})
    monkeypatch.setattr(inventory, "state", lambda: next(seen))
    audit.remember()
    assert audit.left_behind(0.0) == [loop, mount]


def test_what_goes_in_time_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = states({}, {"cgroup: /a": 1}, {"cgroup: /a": 1}, {})
    monkeypatch.setattr(inventory, "state", lambda: next(seen))
    audit.remember()
    assert audit.left_behind(30.0) == []


def test_records_lost_before_they_were_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "taint", lambda: 0)
    monkeypatch.setattr(kmsg, "read", lambda: [record("BUG: old", seq=90), record("fine", seq=91)])
    assert audit.review(70, [], False, 0.0)["lost"] == 20
    seen = audit.review(91, [], False, 0.0)
    assert (seen["log"], seen["lost"], seen["last"]) == ([], 0, [record("fine", seq=91)])


def test_records_lost_in_the_middle_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    since = audit.own_log_begins("this is a test")
    assert audit.review(since, [], False, 0.0)["lost"] == 0
    kernel.lose(30)
    kernel.log("this is left")
    kernel.lose(7)
    kernel.log("and this")
    assert audit.review(since, [], False, 0.0)["lost"] == 37
    kernel.lose(100)
    kernel.log("much later")
    assert audit.review(since, [], False, 0.0)["lost"] == 137
    assert audit.review(-1, [], False, 0.0)["lost"] == audit.review(0, [], False, 0.0)["lost"]
    assert audit.review(kernel.log("from here on")["seq"], [], False, 0.0)["lost"] == 0


class Kernel:
    """A log, and a taint that is set as each line of trouble comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[dict[str, Any]] = []
        self.unread: list[dict[str, Any]] = []
        self.taint = 0
        self._number = 0
        monkeypatch.setattr(audit, "taint", lambda: self.taint)
        monkeypatch.setattr(audit, "_log", 3)
        monkeypatch.setattr(audit, "_logged", [])
        monkeypatch.setattr(audit, "_taint_before", 0)
        monkeypatch.setattr(kmsg, "mark", lambda text: self.log(text)["seq"])
        monkeypatch.setattr(kmsg, "read", lambda: list(self.records))
        monkeypatch.setattr(kmsg, "read_from", lambda _handle: self._read())

    def log(self, text: str) -> dict[str, Any]:
        self.records.append(record(text, seq=self._number))
        self._number += 1
        self.unread.append(self.records[-1])
        return self.records[-1]

    def lose(self, count: int) -> None:
        """So many lines are logged that nobody will ever read."""
        self._number += count

    def warn(self) -> None:
        self.log("WARNING: CPU: 0 PID: 1 at kernel/time/tick.c:1")
        self.taint |= 1 << 9

    def _read(self) -> list[dict[str, Any]]:
        unread, self.unread = self.unread, []
        return unread


def test_trouble_before_the_test_is_told_apart_from_the_tests_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    kernel.warn()
    seen = audit.review(audit.own_log_begins("this is a fork"), [], False, 0.0)
    assert (seen["log"], seen["taint"]) == ([], 0)
    assert [story[0]["text"][:8] for story in seen["early"]] == ["WARNING:"]


def test_a_warning_while_a_test_is_begun_or_judged_never_taints_without_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    mark, read = kmsg.mark, kmsg.read_from

    def mark_and_warn(text: str) -> int:
        number = mark(text)
        kernel.warn()
        return number

    def read_and_warn(handle: int) -> list[dict[str, Any]]:
        records = read(handle)
        kernel.warn()
        return records

    monkeypatch.setattr(kmsg, "mark", mark_and_warn)
    since = audit.own_log_begins("this is a fork")
    seen = audit.review(since, [], False, 0.0)
    assert (len(seen["log"]), seen["taint"], seen["last"]) == (1, 0, [])
    monkeypatch.setattr(kmsg, "mark", mark)
    kernel.taint = 0
    since = audit.own_log_begins("this is another")
    # In the middle of the review, as the log has just been read.
    monkeypatch.setattr(kmsg, "read_from", read_and_warn)
    assert audit.review(since, [], False, 0.0)["taint"] == 0
    monkeypatch.setattr(kmsg, "read_from", read)
    seen = audit.review(since, [], False, 0.0)
    assert (len(seen["log"]), seen["taint"]) == (1, 1 << 9)


def test_modules_that_are_held_count_when_nothing_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    holding = {"module": "module still in use: driver (1 reference more)"}
    monkeypatch.setattr(references, "counted", dict)
    monkeypatch.setattr(references, "unexplained", lambda _before: [*holding.values()])
    seen = states({}, {"swap area: /dev/zram0": 1}, {})
    monkeypatch.setattr(inventory, "state", lambda: next(seen))
    audit.remember()
    assert audit.left_behind(0.0) == ["swap area: /dev/zram0"]
    assert audit.left_behind(0.0) == ["module still in use: driver (1 reference more)"]
    holding.clear()
    assert audit.left_behind(30.0) == []


def test_who_was_started_by_whom_is_known() -> None:
    assert holders.descends(os.getpid(), os.getppid())
    assert holders.descends(os.getpid(), os.getpid())
    assert not holders.descends(os.getppid(), os.getpid())
    assert not holders.descends(1 << 30, os.getpid())
