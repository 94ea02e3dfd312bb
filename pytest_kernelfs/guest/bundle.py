"""What a machine can tell of itself after a failure, in one call that ends in time whatever is stuck.

Each part is read in a thread of its own: a file of /proc may wait for a lock that a stuck task holds.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import dying, kmsg, tasks
from pytest_kernelfs.guest.patience import Patience

_Read = Callable[[], str]

# A machine with thousands of processes tells more than anybody reads.
_MOST_CHARACTERS = 1 << 20
_MOST_CGROUPS = 300
# linux/kern_levels.h
_WARNING = 4
# Long enough to tell a task that is stuck from one that waits for its disk.
_BLOCKED_FOR_S = 0.2
_LOOK_S = 0.1
# The host has a deadline, too, some seconds later: what stood still has this much of them.
_MORE_S = 2.0
_CGROUP_FILES = """
    cgroup.type cgroup.controllers cgroup.subtree_control cgroup.events cgroup.freeze cgroup.stat cgroup.procs
    memory.current memory.min memory.low memory.high memory.max memory.peak memory.swap.current
    memory.swap.max memory.events memory.stat memory.pressure cpu.weight cpu.max cpu.stat cpu.pressure
    io.max io.stat io.pressure pids.current pids.max pids.events cpuset.cpus.effective
""".split()  # noqa: SIM905  (a list this long reads best as words)
# Of version 1. Without its tasks: those are the threads of what is in cgroup.procs.
_CGROUP_V1_FILES = """
    cgroup.procs notify_on_release freezer.state freezer.self_freezing
    memory.usage_in_bytes memory.max_usage_in_bytes memory.limit_in_bytes memory.soft_limit_in_bytes
    memory.failcnt memory.memsw.usage_in_bytes memory.memsw.limit_in_bytes memory.kmem.usage_in_bytes
    memory.kmem.limit_in_bytes memory.oom_control memory.swappiness memory.use_hierarchy memory.stat
    cpu.shares cpu.cfs_quota_us cpu.cfs_period_us cpu.rt_runtime_us cpu.stat cpuacct.usage cpuacct.stat
    blkio.throttle.read_bps_device blkio.throttle.write_bps_device blkio.throttle.read_iops_device
    blkio.throttle.write_iops_device blkio.throttle.io_service_bytes blkio.throttle.io_serviced
    pids.current pids.max pids.events cpuset.cpus cpuset.mems net_cls.classid
""".split()  # noqa: SIM905
_BLOCK_FILES = (
    "size", "ro", "removable", "serial", "inflight", "loop/backing_file", "dm/name", "queue/scheduler",
    "queue/logical_block_size", "queue/write_cache",
)  # fmt: skip
_SYSTEM_FILES = (
    "/proc/version", "/proc/cmdline", "/proc/uptime", "/proc/loadavg", "/proc/sys/kernel/tainted",
    "/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/swaps", "/proc/locks",
    "/proc/sys/fs/file-nr", "/proc/sys/fs/inode-nr", "/proc/modules", "/proc/interrupts", "/proc/softirqs",
)  # fmt: skip


def collect(seconds: float, since: int) -> dict[str, Any]:
    """All that can be read within so many seconds.

    Gives a dict: ``files`` (name -> text), ``problems`` (name -> why there is no such file), ``blocked``
    (the tasks in state D, as ``tasks.stuck`` gives them), ``loud`` (the lines of the kernel's log from the
    record number ``since`` on that are warnings or worse); both are None if they were not read in time.
    """
    waiting, deadline = Patience(seconds, _LOOK_S), time.monotonic() + seconds + _MORE_S
    blocked: list[dict[str, Any]] = []
    loud: list[str] = []

    def find_blocked() -> str:
        found = tasks.stuck(_BLOCKED_FOR_S, kernel_threads=True)
        blocked.extend(task for task in found if task["comm"])  # the others ended while we looked
        return "\n".join(_task_lines(blocked))

    def read_log() -> str:
        records = kmsg.read()
        loud.extend(_line(one) for one in records if one["seq"] >= since and one["level"] <= _WARNING)
        return "\n".join(f"{record['level']} {_line(record)}" for record in records)

    readers: dict[str, _Read] = {
        "dmesg.txt": read_log,
        "blocked-tasks.txt": find_blocked,
        "processes.txt": lambda: "\n".join(_process_lines()),
        "mounts.txt": lambda: _read("/proc/self/mountinfo"),
        "cgroups.txt": lambda: _sections(_cgroup_files()),
        "meminfo.txt": lambda: _read("/proc/meminfo"),
        "vmstat.txt": lambda: _read("/proc/vmstat"),
        "slabinfo.txt": lambda: _read("/proc/slabinfo"),
        "disks.txt": lambda: _sections(_disk_files()),
        "system.txt": lambda: _sections(iter(_SYSTEM_FILES)),
    }
    parts = [_Part(name, read) for name, read in readers.items()]
    for part in parts:
        part.start()
    for part in parts:
        part.wait(waiting, deadline)
    files = {part.name: part.text for part in parts if part.text is not None}
    return {
        "files": files,
        "problems": {part.name: part.problem(seconds) for part in parts if part.text is None},
        "blocked": blocked if "blocked-tasks.txt" in files else None,
        "loud": loud if "dmesg.txt" in files else None,
    }


class _Part:
    """One file of the bundle, on its way."""

    def __init__(self, name: str, read: _Read) -> None:
        self.name = name
        self.text: str | None = None
        self._read = read
        self._error = ""
        self._tid = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # There is no room for one more thread. What follows may be stuck: the host has a deadline too.
            self._run()

    def wait(self, waiting: Patience, deadline: float) -> None:
        while self._thread.is_alive() and time.monotonic() < deadline and waiting.wait(self._thread.join):
            pass

    def problem(self, seconds: float) -> str:
        """Why there is no text."""
        if self._error:
            return self._error
        where = _read_or(f"/proc/self/task/{self._tid}/wchan", "")
        waiting = f"; it waits in {where}" if where not in ("", "0") else ""
        return f"it was not read within {seconds:g} s{waiting}"

    def _run(self) -> None:
        self._tid = getattr(threading, "get_native_id", int)()
        try:
            text = self._read()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
            return
        if len(text) > _MOST_CHARACTERS:
            text = f"{text[:_MOST_CHARACTERS]}\n[cut off: {len(text)} characters in all]"
        self.text = text.rstrip("\n") + "\n" if text else ""


def _line(record: dict[str, Any]) -> str:
    return f"[{record['seconds']:12.6f}] {record['text']}"


def _task_lines(blocked: list[dict[str, Any]]) -> Iterator[str]:
    for task in blocked:
        yield f"{task['comm']} (pid {task['pid']}, tid {task['tid']}) waits in {task['wchan'] or '?'}"
        yield f"  syscall: {task['syscall'] or '?'}"
        yield from (f"  {line}" for line in task["stack"])
        yield ""


def _process_lines() -> Iterator[str]:
    """All tasks. Never their command lines: to read those takes a lock that a stuck task may hold."""
    yield "    pid     tid    ppid S   rss KiB comm             waits in"
    page = os.sysconf("SC_PAGE_SIZE") >> 10
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        try:
            tids = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for tid in sorted(tids, key=int):
            folder = f"/proc/{pid}/task/{tid}"
            before, _, after = _read_or(folder + "/stat", "").rpartition(")")
            fields = after.split()
            if len(fields) > 21:
                comm = before.partition("(")[2]
                wchan = _read_or(folder + "/wchan", "")
                rss = int(fields[21]) * page
                yield f"{pid:>7} {tid:>7} {fields[1]:>7} {fields[0]} {rss:>9} {comm:<16} {wchan}"


def _cgroup_files() -> Iterator[str]:
    yield "/proc/cgroups"
    for folder, wanted, files in itertools.islice(_cgroups(), _MOST_CGROUPS):
        yield from (f"{folder}/{name}" for name in wanted if name in files)


def _cgroups() -> Iterator[tuple[str, list[str], list[str]]]:
    """Each cgroup's folder, the files that tell of one, and those that it has; version 2 first."""
    mounted = dying.hierarchies()
    second = mounted.pop("", None)
    trees = [(second, _CGROUP_FILES)] if second is not None else []
    # Controllers may share a hierarchy.
    trees += [(top, _CGROUP_V1_FILES) for top in sorted(set(mounted.values()))]
    for top, wanted in trees:
        for folder, children, files in os.walk(top):
            children.sort()
            yield folder, wanted, files


def _disk_files() -> Iterator[str]:
    yield from ("/proc/diskstats", "/proc/partitions")
    for device in sorted(os.listdir("/sys/block")):
        yield from (f"/sys/block/{device}/{name}" for name in _BLOCK_FILES)


def _sections(paths: Iterator[str]) -> str:
    """The files that there are, each under its path; what has one line stands beside it."""
    parts = []
    for path in paths:
        text = _read_or(path, None)
        if text:
            text = text.rstrip("\n")
            if path.endswith("/cgroup.procs"):
                text = text.replace("\n", " ")
            parts.append(f"{path}: {text}" if "\n" not in text else f"==> {path} <==\n{text}\n")
    return "\n".join(parts)


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _read_or(path: str, otherwise: Any) -> Any:
    try:
        return _read(path)
    except OSError:
        return otherwise
