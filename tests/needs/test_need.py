"""How needs are written."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.needs.need import Need, parse

GOOD = [
    *("overlay:volatile", "overlay:lowerdir+", "overlay:redirect_dir=nofollow", "overlay:future=on"),
    *("cgroup:v1", "cgroup:v2", "cgroup:memory", "cgroup:v2:memory", "cgroup:v1:memory", "cgroup:dmem"),
    *("cgroup:memory.peak", "cgroup:cgroup.kill", "cgroup:v1:memory.limit_in_bytes", "cgroup:v1:freezer"),
    *("config:XFS_QUOTA", "config:CONFIG_XFS_QUOTA", "config:HZ=250", "config:LSM=a,b"),
    *("module:dm_delay", "module:dm-delay", "command:mkfs.btrfs", "filesystem:btrfs", "filesystem:9p"),
]
BAD = [
    *("", ":", "overlay", "overlay:", "overlays:volatile", "overlay:volatil", "overlay:a=b,c=d"),
    *(
        "cgroup:v3",
        "cgroup:v1:memroy",
        "cgroup:freezer",
        "cgroup:v1:io",
        "cgroup:v1:cgroup.procs",
        "cgroup:memory.",
    ),
    *("config:", "config:A B", "module:a b", "command:mkfs.zfs", "filesystem:", "filesystem:a:b"),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_known(text: str) -> None:
    need = parse(text)
    assert str(need) == text
    assert need == Need(*text.split(":", 1))


@pytest.mark.parametrize("text", [*BAD, None, 5])
def test_what_is_not_known(text: object) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_programs_of_another_machine_may_be_any() -> None:
    with pytest.raises(UsageError, match="never given a program 'systemctl'"):
        parse("command:systemctl")
    assert str(parse("command:systemctl", lifted=False)) == "command:systemctl"
    with pytest.raises(UsageError, match="is no name"):
        parse("command:a b", lifted=False)


def test_which_needs_depend_on_how_the_kernel_was_booted() -> None:
    assert {need.kind for need in map(parse, GOOD) if need.depends_on_boot} == {"cgroup"}
