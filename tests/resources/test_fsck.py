"""What a checker says is trimmed to its complaints, and told with the test."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import KernelfsWarning
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.vm import VM, Checkpoint
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem import Xfs
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.fsck import judge
from pytest_kernelfs.resources.preparation import unpack
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine

CLEAN = {
    "rc": 0,
    "output": "Phase 1 - find and verify superblock...\n",
    "replay": "",
    "skipped": "",
    "unable": "",
}
DAMAGED = {
    **CLEAN,
    "rc": 1,
    "output": "Phase 3 - for each AG...\nagf has bad CRC for ag 0\n        - agno = 0\n",
}


@pytest.fixture
def xfs(xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources) -> Xfs:
    resources.checks = frozenset({"fsck"})
    machine.answers["check"] = CLEAN
    return xfs_factory()


def test_a_sound_file_system_is_no_finding(xfs: Xfs, machine: FakeMachine, resources: Resources) -> None:
    machine.calls.clear()
    resources.close()
    assert resources.findings == []
    assert machine.names == ["umount", "check", "detach_loop", "remove"]
    kind, device, command, options, *_ = machine.arguments("check")[0]
    assert (kind, device, command, options) == ("xfs", "/dev/loop0", ["xfs_repair", "-n", "-P"], "")


def test_damage_is_a_finding_in_the_tools_own_words(
    xfs: Xfs, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["check"] = DAMAGED
    resources.close()
    assert resources.findings == [
        f"the xfs on /dev/loop0 (of {xfs.path}) is damaged on kernel 6.1.176; xfs_repair -n -P says:\n"
        "  agf has bad CRC for ag 0"
    ]


def test_a_log_that_cannot_be_replayed_is_a_finding(
    xfs: Xfs, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["check"] = {**CLEAN, "rc": None, "replay": "Structure needs cleaning"}
    resources.close()
    assert resources.findings[0].endswith("mounting it again says:\n  Structure needs cleaning")


def test_the_check_can_be_switched_off(xfs: Xfs, machine: FakeMachine, resources: Resources) -> None:
    resources.checks = frozenset({"dmesg"})
    resources.close()
    assert "check" not in machine.names


def test_one_that_the_test_destroys_on_purpose_is_left_out(
    xfs: Xfs, machine: FakeMachine, resources: Resources
) -> None:
    xfs.checked = False
    resources.close()
    assert "check" not in machine.names


def test_of_several_on_a_device_the_latest_is_checked(
    xfs_factory: XfsFactory, disk_factory: DiskFactory, machine: FakeMachine, resources: Resources
) -> None:
    resources.checks = frozenset({"fsck"})
    machine.answers["check"] = CLEAN
    disk = disk_factory()
    xfs_factory(on=disk).umount()
    xfs_factory(on=disk)
    resources.close()
    assert machine.names.count("check") == 1


def test_a_slow_disk_is_at_full_speed_meanwhile(
    xfs_factory: XfsFactory, disk_factory: DiskFactory, machine: FakeMachine, resources: Resources
) -> None:
    resources.checks = frozenset({"fsck"})
    machine.answers["check"] = CLEAN
    xfs_factory(on=disk_factory(write_bps="1M"))
    machine.calls.clear()
    resources.close()
    assert machine.names == ["throttle_disk", "umount", "check", "throttle_disk", "detach_disk"]
    assert machine.arguments("throttle_disk")[0][1] == DiskSpec(1 << 30)


@pytest.fixture
def kept(xfs: Xfs) -> tuple[Xfs, Resources, FakeMachine]:
    """A file system that a checkpoint kept, in a fork."""
    fork = FakeMachine(check=CLEAN)
    vm = VM(fork)
    resources = unpack(vm, Checkpoint(NothingSaved(), {"xfs": xfs}))
    resources.checks = frozenset({"fsck"})
    return vm.kept["xfs"], resources, fork


class NothingSaved:
    """Nothing was saved."""

    def discard(self) -> None: ...


def test_what_a_checkpoint_kept_is_checked_where_the_test_left_it(
    kept: tuple[Xfs, Resources, FakeMachine],
) -> None:
    _xfs, resources, fork = kept
    fork.answers["check"] = {**CLEAN, "rc": None, "skipped": "/dev/loop0: Device or resource busy"}
    resources.close()
    # It is still mounted, and stays so.
    assert fork.names == ["check"]
    assert resources.findings == []


def test_what_a_checkpoint_kept_is_checked_once(kept: tuple[Xfs, Resources, FakeMachine]) -> None:
    xfs, resources, fork = kept
    fork.answers["check"] = DAMAGED
    xfs.umount()
    xfs.mount()
    resources.close()
    assert fork.names.count("check") == 1
    assert len(resources.findings) == 1


def test_of_what_a_checkpoint_kept_only_the_latest_on_a_device_is_checked(
    xfs: Xfs, resources: Resources
) -> None:
    xfs.umount()
    latest = Xfs(resources, xfs.on)
    latest.mount()
    fork = FakeMachine(check=CLEAN)
    made = unpack(VM(fork), Checkpoint(NothingSaved(), {"old": xfs, "new": latest}))
    made.checks = frozenset({"fsck"})
    made.close()
    assert fork.names == ["check"]


def test_it_is_checked_on_request(xfs: Xfs, machine: FakeMachine) -> None:
    with pytest.raises(Exception, match="is mounted: call umount"):
        xfs.assert_sound()
    xfs.umount()
    xfs.assert_sound()
    machine.answers["check"] = DAMAGED
    with pytest.raises(AssertionError, match="agf has bad CRC"):
        xfs.assert_sound()


@pytest.mark.parametrize(
    "raw",
    [
        {"rc": None, "skipped": "/dev/vda: No such file or directory"},
        {"rc": 8, "output": "/dev/vda has unsupported feature(s): FEATURE_C12"},
        {"rc": 1, "output": "xfs_repair: read failed: Input/output error"},
        {"rc": 1, "output": "This filesystem has an external log.  Specify log device with the -l option."},
    ],
)
def test_what_cannot_be_judged_is_no_finding(raw: dict[str, Any]) -> None:
    assert judge({**CLEAN, "output": "", **raw}) == ""


@pytest.mark.parametrize("raw", [{"rc": -9, "output": "Phase 3"}, {"rc": None}])
def test_a_checker_that_came_to_no_judgement_is_warned_of(
    xfs: Xfs, machine: FakeMachine, resources: Resources, raw: dict[str, Any]
) -> None:
    machine.answers["check"] = {**CLEAN, "unable": "xfs_repair was killed by SIGKILL", **raw}
    with pytest.warns(KernelfsWarning, match=r"the xfs on /dev/loop0 may be .*: xfs_repair was killed"):
        resources.close()
    assert resources.findings == []


def test_a_long_story_is_cut() -> None:
    output = "".join(f"[1/7] checking\nbad block {number}\n" for number in range(20))
    lines = judge({**CLEAN, "rc": 1, "output": output}).splitlines()
    assert lines[0] == "  bad block 0"
    assert (len(lines), lines[-1]) == (13, "  ... and 8 more lines")


def test_a_tool_without_words_is_quoted_by_its_exit_code() -> None:
    assert judge({**CLEAN, "rc": 4, "output": "Pass 1: Checking inodes\n"}) == "  (exit code 4, no words)"
