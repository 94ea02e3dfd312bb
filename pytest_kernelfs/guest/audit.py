"""What a test left in the kernel: log, taint, and mounts, devices, cgroups, namespaces still there.

The state before a test is remembered here, inside the machine, so that a
fork knows it without being asked: it is that of the machine it was made from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from re import Pattern
from typing import Any, Dict, List  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import files, inventory, journal, kmsg, references, sysctls
from pytest_kernelfs.guest.patience import Patience

# What xfstests (common/rc, _check_dmesg) and blktests take for a failure, with stalls, panics,
# the file systems' own words for damage, and data that was lost on its way to a disk. The last two lines are
# leaks that older kernels (or all, of ext4 and btrfs) tell with neither a WARN nor a taint: fs/super.c,
# fs/open.c, mm/slab_common.c, fs/ext4/super.c, fs/btrfs/extent_io.c.
_BAD = re.compile(
    r"kernel BUG at|WARNING:|\bBUG:|Oops:|: [0-9a-f]{4,} \[#\d+\]|possible recursive locking detected|"
    r"(INFO|ERR): suspicious RCU usage|INFO: possible circular locking dependency detected|"
    r"general protection fault|BUG .* remaining|oom-kill|UBSAN:|KASAN:|KCSAN:|Internal error|"
    r"INFO: task .* blocked for more than|rcu: INFO: .* stall|soft lockup|hard LOCKUP|Kernel panic|"
    r"XFS .*(Corruption|metadata I/O error|[Ss]hutting down)|EXT4-fs error|BTRFS.*(critical|error)|"
    r"F2FS-fs.*[Cc]orrupt|overlayfs: .*in-use|"
    r"lost (a?sync )?page write|writeback error on inode|Aborting journal|JBD2: Detected IO errors|"
    r"VFS: Busy inodes after unmount|VFS: Close: file count is 0|Slab cache still has objects|"
    r"EXT4-fs .*(orphan list check failed|inode tracked as orphan)!|BTRFS: (buffer|state) leak"
)
# xfstests filters the same: limits of lockdep and of the stack depot, and a repair that XFS announces.
_WELL = re.compile(
    r"MAX_LOCKDEP_CHAIN_HLOCKS too low|MAX_STACK_TRACE_ENTRIES too low|WARNING: Reset corrupted AGFL"
)
# linux/kern_levels.h: 0 emergency, 1 alert, 2 critical. A healthy kernel says nothing so loud.
_LOUD = 2
_TRACE_LINES = 12
_TRACE_BEGINS = re.compile(
    r"WARNING:|\bBUG|Oops|\[#\d+\]|cut here|general protection|blocked for more|stall|lockup"
)
_TRACE_ENDS = re.compile(r"end trace")
# The kernel dies of what it told before, as in "BUG: kernel NULL pointer …", then "Oops: 0002 [#1]", or of
# what is told here alone: "divide error: 0000 [#1]", with "Oops:" before it in newer kernels.
_DIES = re.compile(r"Oops:|\[#\d+\]")
_CAUSES = re.compile(r"\bBUG\b")
_MOST_FOUND = 20
_LAST_LINES = 5

_POLL_S = 0.02
# What the kernel does in the background may hold a module, such as a search for disks: that has so many times
# the time of all else.
_FOR_REFERENCES = 3

_before: inventory.State = {}
_held_before: references.Counts = {}
_taint_before = 0
# Nothing on a machine of our own, which ends with its tests.
_sysctls: sysctls.Values = {}
# The log, open where the test began, and what was read of it: to read it all costs a record each.
_log = -1
_logged: List[Dict[str, Any]] = []  # noqa: UP006


def remember() -> None:
    """Take what is there now for what was there before the test."""
    global _before, _held_before, _log, _sysctls
    _before = inventory.state()
    _held_before = references.counted()
    _sysctls = sysctls.read_all() if journal.is_kept() else {}
    if _log >= 0:
        os.close(_log)
    _log = kmsg.open_at_end()
    _logged.clear()
    _accept_taint()


def begin(text: str) -> int:
    """The start of a test on a machine that others used before: remember, and write a line into the log.

    Gives the number of that line.
    """
    remember()
    return own_log_begins(text)


def own_log_begins(text: str) -> int:
    """Write a line into the log; what comes from there on is the test's. Gives the line's number."""
    number = kmsg.mark(text)
    _accept_taint()
    return number


def _accept_taint() -> None:
    """Take the taint for what was there before.

    Always behind the place where the log is begun: the kernel taints itself after it has told why, and what
    it did in between is told then. The other way round there would be a taint that nothing explains.
    """
    global _taint_before
    _taint_before = taint()


def review(
    since: int, allowed: list[str], leaks: bool, patience: float, also: Sequence[str] = ()
) -> dict[str, Any]:
    """All that is to be judged after a test, in one call. ``also`` are patterns that tell of a failure, too.

    Gives a dict: ``log`` (see ``bad_records``), ``last`` (the last records, where there are no bad ones),
    ``early`` (the bad ones from between the machine's copying and the test), ``lost`` (records from ``since``
    on that were overwritten before they were read), ``taint`` (bits that were set meanwhile), ``leaks`` (see
    ``left_behind``; empty unless ``leaks``).
    """
    left = left_behind(patience) if leaks else []
    # Before the log: what taints the kernel was logged before.
    tainted = taint() & ~_taint_before
    records = _records(since)
    own = [record for record in records if record["seq"] >= since]
    # The kernel leaves out no number: one that is not there, before the first of them or between, is gone.
    lost = own[-1]["seq"] + 1 - max(since, 0) - len(own) if own else 0
    bad = bad_records(own, allowed, also)
    early = bad_records([record for record in _logged if record["seq"] < since], allowed)
    last = [] if bad else own[-_LAST_LINES:]
    return {"log": bad, "last": last, "early": early, "lost": lost, "taint": tainted, "leaks": left}


def _records(since: int) -> list[dict[str, Any]]:
    """The log from ``since`` on, or all of it if that lies before the test's own part."""
    if _log < 0:
        return kmsg.read()
    _logged.extend(kmsg.read_from(_log))
    return _logged if _logged and _logged[0]["seq"] <= since else kmsg.read()


def bad_records(
    records: list[dict[str, Any]], allowed: list[str], also: Sequence[str] = ()
) -> list[list[dict[str, Any]]]:
    """The records that tell of a failure, each with the trace that follows it; at most 20.

    Those that one of the regular expressions ``also`` matches count as well. Left out are those that any of
    the ``allowed`` ones matches, and their traces.
    """
    more = [re.compile(pattern) for pattern in also]
    patterns = [re.compile(pattern) for pattern in allowed]
    found: list[list[dict[str, Any]]] = []
    index = 0
    while index < len(records) and len(found) < _MOST_FOUND:
        record = records[index]
        if not _is_bad(record) and not _matches(record, more):
            index += 1
            continue
        story = _story(records, index, more)
        if not _matches(record, patterns):
            found.append(story)
        index += len(story)
    return found


def _is_bad(record: dict[str, Any]) -> bool:
    text = record["text"]
    return bool(record["level"] <= _LOUD or _BAD.search(text)) and not _WELL.search(text)


def _matches(record: dict[str, Any], patterns: Sequence[Pattern[str]]) -> bool:
    return any(pattern.search(record["text"]) for pattern in patterns)


def _story(records: list[dict[str, Any]], index: int, more: Sequence[Pattern[str]]) -> list[dict[str, Any]]:
    """The record, and the trace below it if one begins there: up to its end, or to other trouble."""
    first = records[index]
    if not _TRACE_BEGINS.search(first["text"]):
        return [first]
    end = index + 1
    while end < len(records) and end - index < _TRACE_LINES:
        if _is_other_trouble(records[end], first, more):
            break
        end += 1
        if _TRACE_ENDS.search(records[end - 1]["text"]):
            break
    return records[index:end]


def _is_other_trouble(record: dict[str, Any], first: dict[str, Any], more: Sequence[Pattern[str]]) -> bool:
    """Whether a record within a trace tells of something else than ``first``, the one that it begins with.

    A trace is no louder than what it is the trace of: an oops and its "#PF: …" are alerts, all else is not.
    """
    if _matches(record, more):
        return True
    if _DIES.search(record["text"]) and _CAUSES.search(first["text"]):
        return False
    return bool(record["level"] <= _LOUD < first["level"] or _BAD.search(record["text"]))


def taint() -> int:
    """The kernel's taint bits; see Documentation/admin-guide/tainted-kernels.rst."""
    return int(files.text("/proc/sys/kernel/tainted") or 0)


def left_behind(patience: float) -> list[str]:
    """What is there that was not there before, as text; it has ``patience`` seconds to go away.

    If nothing is, modules that are held by nothing that can be seen.
    """
    soon, later = Patience(patience, _POLL_S), Patience(_FOR_REFERENCES * patience, _POLL_S)
    while True:
        now = inventory.state()
        left = sorted(name for name, count in now.items() if count > _before.get(name, 0))
        held = [] if left else references.unexplained(_held_before)
        if not (left or held) or not (soon if left else later).wait():
            return left + held + sysctls.changed(_sysctls)
