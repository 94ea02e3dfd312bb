"""What a test left in the kernel: log, taint, and mounts, devices, cgroups, namespaces still there.

The state before a test is remembered here, inside the machine, so that a
fork knows it without being asked: it is that of the machine it was made from.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any, Dict, List  # noqa: UP035  (Python 3.7)

from pytest_kernelfs.guest import cgroups, dying, files, filesystems, holders, journal, kmsg, loops

_State = Dict[str, int]  # noqa: UP006   # what is there -> how often

# What xfstests (common/rc, _check_dmesg) and blktests take for a failure, with stalls, panics,
# the file systems' own words for damage, and data that was lost on its way to a disk.
_BAD = re.compile(
    r"kernel BUG at|WARNING:|\bBUG:|Oops:|possible recursive locking detected|"
    r"(INFO|ERR): suspicious RCU usage|INFO: possible circular locking dependency detected|"
    r"general protection fault|BUG .* remaining|oom-kill|UBSAN:|KASAN:|KCSAN:|Internal error|"
    r"INFO: task .* blocked for more than|rcu: INFO: .* stall|soft lockup|hard LOCKUP|Kernel panic|"
    r"XFS .*(Corruption|metadata I/O error|[Ss]hutting down)|EXT4-fs error|BTRFS.*(critical|error)|"
    r"F2FS-fs.*[Cc]orrupt|overlayfs: .*in-use|"
    r"lost (a?sync )?page write|writeback error on inode|Aborting journal|JBD2: Detected IO errors"
)
# xfstests filters the same: limits of lockdep and of the stack depot, and a repair that XFS announces.
_WELL = re.compile(
    r"MAX_LOCKDEP_CHAIN_HLOCKS too low|MAX_STACK_TRACE_ENTRIES too low|WARNING: Reset corrupted AGFL"
)
# linux/kern_levels.h: 0 emergency, 1 alert, 2 critical. A healthy kernel says nothing so loud.
_LOUD = 2
_TRACE_LINES = 12
_TRACE_BEGINS = re.compile(r"WARNING:|\bBUG|Oops|cut here|general protection|blocked for more|stall|lockup")
_TRACE_ENDS = re.compile(r"end trace")
# What goes on with the trouble that was told before it: "BUG: kernel NULL pointer …", then "Oops: 0002 [#1]".
_BELONGS = re.compile(r"Oops:")
_MOST_FOUND = 20

# Mounted by the kernel itself when somebody looks inside, and by "ip netns" when it is first used.
_AUTOMOUNTS = ("/sys/kernel/debug/tracing", "/proc/sys/fs/binfmt_misc", "/run/netns")
_NAMED_NAMESPACES = "/run/netns/"
# Mounted by systemd for a service or the session of a user.
_SYSTEMD_MOUNTS = ("/run/credentials/", "/run/systemd/", "/run/user/")
# Where tests mount on a machine that others use, too: what is mounted elsewhere is not theirs.
_PLACES = ("/run/kernelfs/", "/mnt/", "/tmp/")
_POLL_S = 0.02

_before: _State = {}
_taint_before = 0
# The log, open where the test began, and what was read of it: to read it all costs a record each.
_log = -1
_logged: List[Dict[str, Any]] = []  # noqa: UP006


def remember() -> None:
    """Take what is there now for what was there before the test."""
    global _before, _taint_before, _log
    _before = state()
    _taint_before = taint()
    if _log >= 0:
        os.close(_log)
    _log = kmsg.open_at_end()
    _logged.clear()


def begin(text: str) -> int:
    """The start of a test on a machine that others used before: remember, and write a line into the log.

    Gives the number of that line.
    """
    remember()
    return kmsg.mark(text)


def review(
    since: int, allowed: list[str], leaks: bool, patience: float, also: Sequence[str] = ()
) -> dict[str, Any]:
    """All that is to be judged after a test, in one call. ``also`` are patterns that tell of a failure, too.

    Gives a dict: ``log`` (see ``bad_records``), ``lost`` (records overwritten before they were read),
    ``taint`` (bits that were set meanwhile), ``leaks`` (see ``left_behind``; empty unless ``leaks``).
    """
    left = left_behind(patience) if leaks else []
    records = _records(since)
    # The oldest record there is: later than the first of the test means that some are gone.
    lost = max(0, records[0]["seq"] - since) if records else 0
    return {
        "log": bad_records([record for record in records if record["seq"] >= since], allowed, also),
        "lost": lost,
        "taint": taint() & ~_taint_before,
        "leaks": left,
    }


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
        if not _is_bad(record) and not any(pattern.search(record["text"]) for pattern in more):
            index += 1
            continue
        story = _story(records, index)
        if not any(pattern.search(record["text"]) for pattern in patterns):
            found.append(story)
        index += len(story)
    return found


def _is_bad(record: dict[str, Any]) -> bool:
    text = record["text"]
    return bool(record["level"] <= _LOUD or _BAD.search(text)) and not _WELL.search(text)


def _story(records: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    """The record, and the trace below it if one begins there: up to its end, or to other trouble."""
    if not _TRACE_BEGINS.search(records[index]["text"]):
        return records[index : index + 1]
    end = index + 1
    while end < len(records) and end - index < _TRACE_LINES:
        text = records[end]["text"]
        if _BAD.search(text) and not _BELONGS.search(text):
            break
        end += 1
        if _TRACE_ENDS.search(text):
            break
    return records[index:end]


def taint() -> int:
    """The kernel's taint bits; see Documentation/admin-guide/tainted-kernels.rst."""
    return int(files.text("/proc/sys/kernel/tainted") or 0)


def left_behind(patience: float) -> list[str]:
    """What is there that was not there before, as text; it has ``patience`` seconds to go away."""
    deadline = time.monotonic() + patience
    while True:
        now = state()
        left = [name for name, count in now.items() if count > _before.get(name, 0)]
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(_POLL_S)


def state() -> _State:
    """Everything that a test can leave behind, and how often it is there.

    On a machine that others use too, what can be told from theirs.
    """
    found: _State = {}
    mounts = _mounts()
    for point, fstype, source in mounts:
        name = f"mount: {fstype} on {point} (from {source})"
        found[name] = found.get(name, 0) + 1
    for name in [*_block_devices(), *_cgroups(mounts), *_network_namespaces()]:
        found[name] = 1
    found.update(_modules_in_use())
    return found


def _mounts() -> list[tuple[str, str, str]]:
    """(mount point, type, source) of each mount in our namespace; escapes such as \\040 are left in."""
    found = []
    with open("/proc/self/mountinfo", errors="replace") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            point = head.split()[4]
            fstype, source = tail.split()[:2]
            if journal.is_kept() and not (point + "/").startswith(_PLACES):
                continue
            if point not in _AUTOMOUNTS and not point.startswith((_NAMED_NAMESPACES, *_SYSTEMD_MOUNTS)):
                found.append((point, fstype, source))
    return found


def _block_devices() -> list[str]:
    """Loop devices with something attached, and device-mapper devices."""
    found = []
    entries = journal.entries()
    our_loops, our_names = list(loops.ours(entries)), journal.noted("dm")
    for name in os.listdir("/sys/block"):
        if name.startswith("loop"):
            backing = files.text(f"/sys/block/{name}/loop/backing_file")
            if backing and (not journal.is_kept() or f"/dev/{name}" in our_loops):
                found.append(f"loop device: /dev/{name} on {backing}")
        elif name.startswith("dm-"):
            called = files.text(f"/sys/block/{name}/dm/name")
            if not journal.is_kept() or called in our_names:
                found.append(f"device-mapper device: {called} (/dev/{name})")
    return found


def _cgroups(mounts: list[tuple[str, str, str]]) -> list[str]:
    """All cgroups; on a machine whose init makes others as it likes, those in the folder for ours."""
    found = []
    everywhere = [point for point, fstype, _source in mounts if fstype in ("cgroup", "cgroup2")]
    tops = [cgroups.home()] if cgroups.home() else everywhere
    for top in [*tops, *dying.parts()] if journal.is_kept() else tops:
        for folder, names, _files in os.walk(top):
            found += [f"cgroup: {folder}/{name}" for name in names]
    return found


def _network_namespaces() -> list[str]:
    """Named namespaces, and those that a process lives in which is not ours."""
    found = []
    try:
        names = os.listdir(_NAMED_NAMESPACES)
    except FileNotFoundError:
        names = []
    if journal.is_kept():
        names = [name for name in names if name in journal.noted("netns")]
    found += [f"network namespace: {name}" for name in names]
    if not os.path.exists("/proc/self/ns/net"):
        return found  # a kernel without them
    ours = os.readlink("/proc/self/ns/net")
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                if os.readlink(f"/proc/{pid}/ns/net") != ours and _may_be_a_tests(pid):
                    found.append(f"network namespace: of process {pid} ({files.text(f'/proc/{pid}/comm')})")
            except OSError:
                continue  # it ended, or is a kernel thread
    return found


def _may_be_a_tests(pid: str) -> bool:
    """Whether a process may be one that a test left: not one of a service that the machine runs."""
    if journal.is_kept():
        return holders.descends(int(pid), os.getppid())
    return cgroups.may_hold(pid)


def _modules_in_use() -> _State:
    """How often each file system's module is held other than by modules: once for every superblock.

    A superblock whose mount is gone from sight (unmounted lazily, in a lost namespace) shows only here.
    """
    if journal.is_kept():
        return {}  # the others on this machine hold them, too
    known = filesystems.kinds()
    found: _State = {}
    for line in files.text("/proc/modules").splitlines():
        name, _size, count, users = line.split()[:4]
        # A kernel that cannot unload modules counts nothing, and shows "-".
        if name in known and count.isdigit():
            holders = sum(bool(user) for user in users.strip("-").split(","))
            found[f"file system still in use: {name}"] = int(count) - holders
    return found
