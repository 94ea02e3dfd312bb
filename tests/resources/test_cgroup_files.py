"""The files of cgroups as values, and limits as what is written."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.cgroup_files import Write, limit_writes, parse


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory.current", "4096\n", 4096),
        ("memory.max", "max\n", None),
        ("memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory.limit_in_bytes", "67108864\n", 64 << 20),
        ("cpu.cfs_quota_us", "-1\n", -1),
        ("cgroup.type", "domain\n", "domain"),
        ("cgroup.procs", "1\n22\n", [1, 22]),
        ("cgroup.procs", "", []),
        ("tasks", "7\n", [7]),
        ("cgroup.controllers", "cpu io memory\n", ["cpu", "io", "memory"]),
        ("cgroup.subtree_control", "\n", []),
        ("cpu.max", "max 100000\n", [None, 100000]),
        ("cpuset.cpus", "0-1\n", ["0-1"]),
        ("cpuacct.usage_percpu", "12 34 \n", [12, 34]),
        ("pids.events", "max 3\n", {"max": 3}),
        ("memory.stat", "anon 0\nfile 4096\n", {"anon": 0, "file": 4096}),
        ("io.max", "254:0 rbps=max wbps=1048576\n", {"254:0": {"rbps": None, "wbps": 1 << 20}}),
        ("io.stat", "254:0 rbytes=1 wbytes=2\n7:0 \n", {"254:0": {"rbytes": 1, "wbytes": 2}, "7:0": {}}),
        ("io.stat", "", {}),
        ("memory.numa_stat", "anon N0=5 N1=6\n", {"anon": {"N0": 5, "N1": 6}}),
        ("io.pressure", "some avg10=1.50 total=9\n", {"some": {"avg10": 1.5, "total": 9}}),
        (
            "blkio.throttle.io_serviced",
            "254:0 Read 1\n254:0 Write 2\nTotal 3\n",
            {"254:0": {"Read": 1, "Write": 2}, "Total": 3},
        ),
        ("memory.kmem.slabinfo", "slabinfo - version: 2.1\n# name\n", "slabinfo - version: 2.1\n# name"),
        ("release_agent", "", ""),
    ],
)
def test_files_are_values(name: str, text: str, value: Any) -> None:
    assert parse(name, text) == value


def writes(version: int, **limits: Any) -> list[Write]:
    none = dict.fromkeys(("memory_max", "memory_swap_max", "cpu_max", "io_max", "pids_max"))
    return limit_writes(version, **{**none, **limits})


@pytest.mark.parametrize(
    ("limits", "version_2", "version_1"),
    [
        (
            {"memory_max": "64M"},
            [("memory.max", "67108864", "")],
            [("memory.limit_in_bytes", "67108864", "")],
        ),
        ({"memory_max": "max"}, [("memory.max", "max", "")], [("memory.limit_in_bytes", "-1", "")]),
        (
            {"cpu_max": 0.5},
            [("cpu.max", "50000 100000", "")],
            [
                ("cpu.cfs_quota_us", "-1", ""),
                ("cpu.cfs_period_us", "100000", ""),
                ("cpu.cfs_quota_us", "50000", ""),
            ],
        ),
        (
            {"cpu_max": "max"},
            [("cpu.max", "max 100000", "")],
            [("cpu.cfs_quota_us", "-1", ""), ("cpu.cfs_period_us", "100000", "")],
        ),
        (
            {"io_max": {"/dev/vda": {"wbps": "1M", "riops": "max"}}},
            [("io.max", "wbps=1048576 riops=max", "/dev/vda")],
            [
                ("blkio.throttle.write_bps_device", "1048576", "/dev/vda"),
                ("blkio.throttle.read_iops_device", "0", "/dev/vda"),
            ],
        ),
        ({"pids_max": 7}, [("pids.max", "7", "")], [("pids.max", "7", "")]),
        ({}, [], []),
    ],
)
def test_limits_are_written_as_each_version_wants_them(
    limits: dict[str, Any], version_2: list[Write], version_1: list[Write]
) -> None:
    assert writes(2, **limits) == version_2
    assert writes(1, **limits) == version_1


def test_a_quota_may_have_a_period_of_its_own() -> None:
    assert writes(2, cpu_max=(2000, 10000)) == [("cpu.max", "2000 10000", "")]


def test_swap_is_of_version_2_alone() -> None:
    assert writes(2, memory_swap_max=0) == [("memory.swap.max", "0", "")]
    with pytest.raises(UsageError, match="version 1 counts memory and swap together"):
        writes(1, memory_swap_max=0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory_max": "much"}, "memory_max 'much' is no size"),
        ({"cpu_max": 0.001}, "cpu_max 0.001 is no limit"),
        ({"cpu_max": "half"}, "cpu_max 'half' is no limit"),
        ({"cpu_max": (0, 100)}, "cpu_max .* is no limit"),
        ({"cpu_max": True}, "cpu_max True is no limit"),
        ({"io_max": {"/dev/vda": {"bps": 1}}}, "io_max of /dev/vda: bps is no limit"),
        ({"io_max": {"wbps": "1M"}}, "io_max: 'wbps': '1M' is not a disk with its limits; write {disk:"),
        ({"io_max": {"/mnt/xfs-1": {"wbps": 1}}}, "io_max: '/mnt/xfs-1': .* is not a disk"),
        ({"io_max": {"/dev/vda": 5}}, "io_max: '/dev/vda': 5 is not a disk with its limits"),
        ({"io_max": {"/dev/vda": {}}}, "io_max of /dev/vda: nothing is no limit"),
        ({"io_max": {"/dev/vda": {"wbps": 0}}}, "takes no limit of 0"),
        ({"pids_max": -1}, "pids_max -1 is no limit"),
        ({"pids_max": "many"}, "pids_max 'many' is no limit"),
    ],
)
def test_what_is_no_limit_is_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        writes(2, **limits)
