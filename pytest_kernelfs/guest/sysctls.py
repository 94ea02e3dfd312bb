"""All sysctls of a machine that others use too: which of them somebody has changed meanwhile."""

from __future__ import annotations

import os
import re
from typing import Dict  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import journal

_FOLDER = "/proc/sys"
_MOST_BYTES = 4096
# Each interface has many, and services set them as interfaces come and go. Below the second, kernels before
# 5.13 show what the scheduler measured. The last is a file system, which may be mounted by a look inside.
_LEFT_OUT = frozenset({"net", "kernel/sched_domain", "fs/binfmt_misc"})
# The kernel changes these by itself, others are judged apart, and reading the last does something.
_VOLATILE = frozenset(
    {
        "kernel.hung_task_detect_count",
        "kernel.hung_task_warnings",
        "kernel.ns_last_pid",
        "kernel.perf_event_max_sample_rate",
        "kernel.printk",
        "kernel.tainted",
        "vm.drop_caches",
        "vm.stat_refresh",
    }
)
# Of a namespace: after it has gone, these names are those of the machine.
_OF_NAMESPACES = (
    *("net.", "kernel.hostname", "kernel.domainname", "kernel.shm", "kernel.msg", "kernel.sem"),
    *("kernel.ns_last_pid", "fs.mqueue.", "user."),
)
# This one, of PID namespaces since that version.
_PID_MAX, _PID_MAX_SINCE = "kernel.pid_max", (6, 14)

Values = Dict[str, str]  # noqa: UP006   # name -> value


def is_of_namespaces(name: str) -> bool:
    """Whether namespaces each have a value of their own."""
    if name == _PID_MAX:
        return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= _PID_MAX_SINCE
    return name.startswith(_OF_NAMESPACES)


def read_all() -> Values:
    """Those that can be set and read, less those of networks and of namespaces of the tests' own."""
    apart = any(entry[0] == "namespaces" for entry in journal.entries())
    found = {}
    for folder, names, files in os.walk(_FOLDER):
        names[:] = [name for name in names if f"{folder}/{name}"[len(_FOLDER) + 1 :] not in _LEFT_OUT]
        for file in files:
            name = f"{folder}/{file}"[len(_FOLDER) + 1 :].replace("/", ".")
            if name in _VOLATILE or (apart and is_of_namespaces(name)):
                continue
            value = _read(f"{folder}/{file}")
            if value is not None:
                found[f"{folder}/{file}"] = value
    return found


def changed(before: Values) -> list[str]:
    """Each of ``read_all`` that has another value now, as text; not those that were set through us."""
    through_us = {name for entry in journal.entries() if entry[0] == "sysctl" for name in entry[1:3]}
    found = []
    for path, value in before.items():
        name = path[len(_FOLDER) + 1 :].replace("/", ".")
        now = _read(path)
        if now not in (None, value) and name not in through_us:
            found.append(f"sysctl: {name} is {now}, and was {value}")
    return found


def _read(path: str) -> str | None:
    """None for what has gone, cannot be set, or cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if not os.fstat(handle).st_mode & 0o222:
            return None
        return " ".join(os.read(handle, _MOST_BYTES).decode(errors="replace").split())
    except OSError:
        return None
    finally:
        os.close(handle)
