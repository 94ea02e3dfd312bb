"""The files of cgroups as Python values, and limits as what is to be written into such files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.sizes import Size, parse_size

NO_LIMIT = "max"
# One line of several words, which would pass for a name and its value.
_LISTS = ("cpu.max", "cgroup.controllers", "cgroup.subtree_control", "cpuset.cpus", "cpuset.mems")
_NUMBERS = ("cgroup.procs", "cgroup.threads", "tasks")
# What version 1 answers where version 2 says "max": the largest multiple of a page below 2**63.
_V1_NO_LIMIT = 0x7FFFFFFFFFFFF000

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000
_IO_KEYS = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}

Write = tuple[str, str, str]
"""A file, what to write into it, and the path of the device whose number goes before that, or ""."""


class Device(Protocol):
    """A block device in the guest."""

    @property
    def path(self) -> str: ...


def parse(name: str, text: str) -> Any:
    """The content of a file as a value.

    A single value is an int, float or str; "max" is None. Lists of processes are ints, of controllers str.
    ``memory.stat`` and the like (flat keyed) are dicts; ``io.stat`` and the like (nested keyed), and
    version 1's ``blkio.throttle.io_serviced``, are dicts of dicts.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    words = [word for line in lines for word in line]
    if name in _NUMBERS:
        return [int(word) for word in words]
    if name in _LISTS:
        return [_value(word) for word in words]
    if not words:
        return {} if name.rpartition(".")[2] in ("stat", "max", "events", "pressure") else ""
    if len(words) == 1 and "=" not in words[0]:
        return _value(words[0], version_1=name.startswith("memory.") and name.endswith("_in_bytes"))
    return _keyed(lines, text)


def _keyed(lines: Sequence[Sequence[str]], text: str) -> Any:
    if any("=" in word for line in lines for word in line):
        return {line[0]: {key: _value(value) for key, _, value in map(_pair, line[1:])} for line in lines}
    if all(len(line) == 2 and not _is_number(line[0]) for line in lines):
        return {key: _value(value) for key, value in lines}
    if any(len(line) == 3 for line in lines) and all(len(line) in (2, 3) for line in lines):
        found: dict[str, Any] = {}
        for key, *rest in lines:
            if len(rest) == 2:
                found.setdefault(key, {})[rest[0]] = _value(rest[1])
            else:
                found[key] = _value(rest[0])
        return found
    if len(lines) == 1 and all(_is_number(word) for word in lines[0]):
        return [int(word) for word in lines[0]]
    return text.rstrip("\n")


def _pair(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def _is_number(word: str) -> bool:
    return word.lstrip("-").isdigit()


def _value(word: str, version_1: bool = False) -> int | float | str | None:
    if word == NO_LIMIT:
        return None
    if _is_number(word):
        number = int(word)
        return None if version_1 and number >= _V1_NO_LIMIT else number
    try:
        return float(word)
    except ValueError:
        return word


def limit_writes(
    version: int,
    memory_max: Size | None,
    memory_swap_max: Size | None,
    cpu_max: float | str | tuple[int, int] | None,
    io_max: Mapping[Device | str, Mapping[str, Size]] | None,
    pids_max: int | str | None,
) -> list[Write]:
    """What to write for these limits; None leaves one as it is, "max" lifts it. Raises: UsageError."""
    writes: list[Write] = []
    if memory_max is not None:
        writes.append(_memory(version, memory_max))
    if memory_swap_max is not None:
        if version == 1:
            raise UsageError(
                "memory_swap_max is of cgroup version 2 alone, where swap is counted by itself; version 1 "
                "counts memory and swap together: write('memory.memsw.limit_in_bytes', ...), no less than "
                "memory_max"
            )
        writes.append(("memory.swap.max", _size(memory_swap_max, "memory_swap_max"), ""))
    if cpu_max is not None:
        writes += _cpu(version, cpu_max)
    for device, limits in _per_device(io_max or {}):
        writes += _io(version, device, limits)
    if pids_max is not None:
        writes.append(("pids.max", _pids(pids_max), ""))
    return writes


def _size(size: Size, what: str) -> str:
    return NO_LIMIT if size == NO_LIMIT else str(parse_size(size, what))


def _memory(version: int, size: Size) -> Write:
    text = _size(size, "memory_max")
    if version == 2:
        return "memory.max", text, ""
    return "memory.limit_in_bytes", "-1" if text == NO_LIMIT else text, ""


def _cpu(version: int, limit: float | str | tuple[int, int]) -> list[Write]:
    quota, period = _quota(limit)
    if version == 2:
        return [("cpu.max", f"{quota or NO_LIMIT} {period}", "")]
    # Without a quota any period is allowed, whatever the old one was.
    return [
        ("cpu.cfs_quota_us", "-1", ""),
        ("cpu.cfs_period_us", str(period), ""),
        *([("cpu.cfs_quota_us", str(quota), "")] if quota else []),
    ]


def _quota(limit: float | str | tuple[int, int]) -> tuple[int, int]:
    """(quota, period) in microseconds; a quota of 0 is none."""
    if limit == NO_LIMIT:
        return 0, _PERIOD_US
    if isinstance(limit, tuple) and len(limit) == 2 and all(type(part) is int and part > 0 for part in limit):
        return limit
    if isinstance(limit, (int, float)) and not isinstance(limit, bool):
        quota = round(limit * _PERIOD_US)
        if quota >= _LEAST_QUOTA_US:
            return quota, _PERIOD_US
    raise UsageError(
        f"cpu_max {limit!r} is no limit; write a number of processors, from 0.01 on, (quota, period) in "
        "microseconds, or 'max'"
    )


def _per_device(io_max: Mapping[Device | str, Mapping[str, Size]]) -> list[tuple[str, Mapping[str, Size]]]:
    """The paths of devices with their limits. Raises: UsageError."""
    found = []
    for device, limits in io_max.items():
        path = device if isinstance(device, str) else getattr(device, "path", "")
        if isinstance(device, Mount) or not path.startswith("/dev/") or not isinstance(limits, Mapping):
            raise UsageError(
                f"io_max: {device!r}: {limits!r} is not a disk with its limits; write "
                f"{{disk: {{'wbps': '1M'}}}} with {', '.join(_IO_KEYS)}"
            )
        found.append((path, limits))
    return found


def _io(version: int, path: str, limits: Mapping[str, Size]) -> list[Write]:
    unknown = set(limits) - set(_IO_KEYS)
    if unknown or not limits:
        raise UsageError(
            f"io_max of {path}: {', '.join(sorted(unknown)) or 'nothing'} is no limit; write "
            f"{{disk: {{'wbps': '1M'}}}} with {', '.join(_IO_KEYS)}"
        )
    values = {key: _size(value, f"io_max, {key}") for key, value in limits.items()}
    if any(value == "0" for value in values.values()):
        raise UsageError(f"io_max of {path}: the kernel takes no limit of 0; write 'max' to lift one")
    if version == 2:
        return [("io.max", " ".join(f"{key}={value}" for key, value in values.items()), path)]
    return [(_IO_KEYS[key], "0" if value == NO_LIMIT else value, path) for key, value in values.items()]


def _pids(limit: int | str) -> str:
    if limit != NO_LIMIT and (type(limit) is not int or limit < 0):
        raise UsageError(f"pids_max {limit!r} is no limit; write a number of processes, or 'max'")
    return str(limit)
