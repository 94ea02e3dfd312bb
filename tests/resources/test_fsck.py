"""What a checker says is trimmed to its complaints, and told with the test."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, KernelfsWarning
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.vm import VM, Checkpoint
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem import Xfs
from pytest_kernelfs.resources.filesystem_factory import FilesystemFactory, XfsFactory
from pytest_kernelfs.resources.fsck import judge
from pytest_kernelfs.resources.loop import LoopDeviceFactory
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
def filesystem_factory(resources: Resources, loop_device_factory: LoopDeviceFactory) -> FilesystemFactory:
    return FilesystemFactory(resources, loop_device_factory)


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


@pytest.mark.parametrize("again", [False, True])
def test_of_several_mounts_of_one_the_last_to_go_has_it_checked(
    filesystem_factory: FilesystemFactory,
    disk_factory: DiskFactory,
    machine: FakeMachine,
    resources: Resources,
    again: bool,
) -> None:
    resources.checks = frozenset({"fsck"})
    mounted: set[str] = set()
    busy = {**CLEAN, "rc": None, "skipped": "/dev/kfs1: Device or resource busy"}
    machine.answers["mount"] = lambda device, path, *_: mounted.add(path)
    machine.answers["umount"] = mounted.discard
    machine.answers["check"] = lambda *_: busy if mounted else DAMAGED
    disk = disk_factory()
    first = filesystem_factory("xfs", on=disk)
    filesystem_factory.mount(on=disk, kind="xfs")
    third = filesystem_factory.mount(on=disk, kind="xfs")
    if again:
        first.umount()
        first.mount()
    else:
        third.umount()
    resources.close()
    assert len(resources.findings) == 1


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


def test_what_is_in_use_or_gone_is_no_finding_but_no_answer_to_whoever_asks(
    xfs: Xfs, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["check"] = {**CLEAN, "rc": None, "skipped": "/dev/loop0: Device or resource busy"}
    xfs.umount()
    with pytest.raises(GuestCommandError, match=r"was not checked: /dev/loop0: .* busy; the device must"):
        xfs.assert_sound()
    resources.close()
    assert resources.findings == []


# In the words of e2fsprogs 1.47, xfsprogs 6.1 and btrfs-progs 6.2.
@pytest.mark.parametrize(
    ("kind", "rc", "words"),
    [
        ("ext4", 8, "/dev/vda has unsupported feature(s): FEATURE_C12"),
        ("ext4", 12, "Error reading block 276 (Input/output error).  Ignore error? no"),
        ("ext4", 8, "e2fsck: Input/output error while trying to open /dev/vda"),
        ("xfs", 1, "xfs_repair: read failed: Input/output error"),
        ("xfs", 1, "superblock read failed, offset 83886080, size 131072, ag 1, rval -1"),
        ("xfs", 1, "fatal error -- Input/output error"),
        ("xfs", 1, "xfs_repair: cache alloc failed (xfs_buf, 200 bytes): Cannot allocate memory"),
        ("xfs", 1, "Found unsupported filesystem features.  Exiting now."),
        (
            "xfs",
            1,
            "fatal error -- This filesystem has an external log.  Specify log device with the -l option.",
        ),
        ("btrfs", 1, "Error reading 30539776, -1"),
        ("btrfs", 1, "couldn't open because of unsupported option features (10000000000)."),
        ("btrfs", 1, "warning, device 2 is missing"),
    ],
)
def test_what_a_checker_cannot_judge_is_no_finding(kind: str, rc: int, words: str) -> None:
    output = f"Phase 1 - find and verify superblock...\n{words}\nbad tree block\n"
    verdict = judge(kind, {**CLEAN, "rc": rc, "output": output})
    assert (verdict.damage, verdict.unable) == ("", f"its checker says {words!r}")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("btrfs", "ERROR: failed to read block groups: Input/output error"),
        ("btrfs", "Error reading 30539776, 0"),
        ("ext4", "Entry 'unsupported.conf' in / (2) has deleted/unused inode 13.  Clear? no"),
        ("ext4", "Entry 'external log' in / (2) has deleted/unused inode 13.  Clear? no"),
        ("xfs", 'entry "Input/output error" in directory inode 128 references free inode 131'),
    ],
)
def test_the_same_words_of_damage_are_a_finding(kind: str, words: str) -> None:
    verdict = judge(kind, {**CLEAN, "rc": 1, "output": f"Phase 1\n{words}\n"})
    assert (verdict.damage, verdict.unable) == (f"  {words}", "")


def test_what_a_checker_cannot_judge_is_warned_of(
    xfs: Xfs, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["check"] = {**CLEAN, "rc": 1, "output": "xfs_repair: read failed: Input/output error\n"}
    with pytest.warns(
        KernelfsWarning, match=r"may be sound or not: its checker says 'xfs_repair: read failed"
    ):
        resources.close()
    assert resources.findings == []


@pytest.mark.parametrize("raw", [{"rc": -9, "output": "Phase 3"}, {"rc": None}])
def test_a_checker_that_came_to_no_judgement_is_warned_of(
    xfs: Xfs, machine: FakeMachine, resources: Resources, raw: dict[str, Any]
) -> None:
    machine.answers["check"] = {**CLEAN, "unable": "xfs_repair was killed by SIGKILL", **raw}
    xfs.umount()
    with pytest.raises(GuestCommandError, match="may be sound or not: xfs_repair was killed"):
        xfs.assert_sound()
    with pytest.warns(KernelfsWarning, match=r"the xfs on /dev/loop0 may be .*: xfs_repair was killed"):
        resources.close()
    assert resources.findings == []


def test_a_long_story_is_cut() -> None:
    output = "".join(f"[1/7] checking\nbad block {number}\n" for number in range(20))
    lines = judge("btrfs", {**CLEAN, "rc": 1, "output": output}).damage.splitlines()
    assert lines[0] == "  bad block 0"
    assert (len(lines), lines[-1]) == (13, "  ... and 8 more lines")


def test_a_tool_without_words_is_quoted_by_its_exit_code() -> None:
    raw = {**CLEAN, "rc": 4, "output": "Pass 1: Checking inodes\n"}
    assert judge("ext4", raw).damage == "  (exit code 4, no words)"
