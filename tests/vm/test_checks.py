"""What is checked after every test: each planted fault fails its test, and a clean test passes."""

from __future__ import annotations

import re

import pytest

from pytest_kernelfs import VM, AssertDmesgClean, AssertNoLeaks, XfsFactory
from tests.vm.inner import InnerRun

FAULTS = """
import pytest

def test_planted_warning(vm):
    vm.run("echo '<4>WARNING: CPU: 0 PID: 1 at fs/inode.c:1 planted' > /dev/kmsg", check=True)

def test_planted_bug(vm):
    vm.run("echo '<2>kernel BUG at fs/inode.c:2!' > /dev/kmsg", check=True)

def test_oom_killer(vm):
    vm.run("sleep 600 >/dev/null 2>&1 & echo 1000 > /proc/$!/oom_score_adj")
    # The kernel does it in the background.
    vm.run("echo f > /proc/sysrq-trigger; until dmesg | grep -q oom-kill; do sleep 0.1; done", check=True)

@pytest.mark.checks(fsck=False)
def test_error_below_xfs(vm, disk_factory):
    disk = disk_factory(size="512M")
    sectors = disk.size // 512
    vm.run(f"dmsetup create below --table '0 {sectors} linear {disk.path} 0' && dmsetup mknodes", check=True)
    vm.run("mkfs.xfs -q /dev/mapper/below -m rmapbt=0 -i nrext64=0 && mkdir -p /mnt/x", check=True)
    vm.run("mount /dev/mapper/below /mnt/x", check=True)
    vm.run(f"dmsetup suspend --nolockfs below && dmsetup load below --table '0 {sectors} error'", check=True)
    vm.run("dmsetup resume below && touch /mnt/x/file; sync -f /mnt/x; umount /mnt/x")
    vm.run("dmsetup remove below", check=True)

def test_death_that_nobody_notices(vm):
    vm.run("(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &", check=True)
    while vm.machine.alive:
        pass

def test_taint(vm):
    vm.run("echo 512 > /proc/sys/kernel/tainted", check=True)

def test_mount(vm):
    vm.run("mkdir /mnt/left && mount -t tmpfs none /mnt/left", check=True)

def test_cgroup(vm):
    vm.run("mkdir -p /sys/fs/cgroup/left/below", check=True)

def test_loop_device(vm):
    vm.run("truncate -s 1M /tmp/image && losetup -f /tmp/image", check=True)

def test_device_mapper(vm):
    vm.run("dmsetup create left --table '0 8 zero' || dmsetup create left --table '0 8 error'", check=True)

def test_network_namespace(vm):
    vm.run("ip netns add left", check=True)

def test_namespace_of_a_process(vm):
    vm.run("unshare -n sleep 600 >/dev/null 2>&1 & "
           "until [ $(readlink /proc/$!/ns/net) != $(readlink /proc/self/ns/net) ]; do :; done", check=True)

def test_superblock_out_of_sight(vm):
    vm.run("truncate -s 400M /tmp/x && mkfs.xfs -q -m rmapbt=0 -i nrext64=0 /tmp/x", check=True)
    vm.run("mkdir /mnt/x && mount -o loop /tmp/x /mnt/x", check=True)
    vm.run("(cd /mnt/x && exec sleep 600) >/dev/null 2>&1 & "
           "until [ \\"$(readlink /proc/$!/cwd)\\" = /mnt/x ]; do :; done", check=True)
    vm.run("umount -l /mnt/x", check=True)

def test_devices_and_swap(vm):
    vm.modprobe("zram")
    vm.run("echo 16M > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0", check=True)
    vm.modprobe("null_blk", nr_devices=0)
    vm.run("mount -t configfs none /sys/kernel/config && mkdir /sys/kernel/config/nullb/left", check=True)

def test_module_in_use(vm):
    vm.modprobe("null_blk", nr_devices=0)
    vm.run("mount -t configfs none /sys/kernel/config && mkdir /sys/kernel/config/nullb/left "
           "&& umount /sys/kernel/config", check=True)

def ruin(vm, made, offset):
    made.umount()
    vm.run(f"printf damagedamage | dd of={made.device} bs=1 seek={offset} conv=notrunc,fsync", check=True)

def test_damaged_xfs(vm, xfs):
    ruin(vm, xfs, 512)

def test_damaged_ext4(vm, ext4):
    ruin(vm, ext4, 1040)

def test_damaged_btrfs(vm, btrfs):
    ruin(vm, btrfs, 65536)

@pytest.mark.checks(fsck=False)
def test_damaged_unseen(vm, ext4):
    ruin(vm, ext4, 1040)

def test_failed_already(vm):
    vm.run("mkdir /mnt/left && mount -t tmpfs none /mnt/left", check=True)
    assert 1 == 2, "its own failure"

@pytest.mark.dmesg_allow("at fs/inode.c:1 planted")
def test_allowed(vm):
    vm.run("echo '<4>WARNING: CPU: 0 PID: 1 at fs/inode.c:1 planted' > /dev/kmsg", check=True)

@pytest.mark.checks(dmesg=False, leaks=False, taint=False)
def test_switched_off(vm, assert_dmesg_clean):
    vm.run("echo '<2>kernel BUG at fs/inode.c:2!' > /dev/kmsg", check=True)
    vm.run("echo 512 > /proc/sys/kernel/tainted; mkdir /sys/fs/cgroup/left", check=True)
    assert_dmesg_clean(allow=["kernel BUG at"])

def test_clean(vm, overlay, ext4, btrfs):
    for mount in (overlay, ext4, btrfs):
        mount.write("file", "1M")
    vm.run("ip netns add here && ip netns del here && mkdir /sys/fs/cgroup/a && rmdir /sys/fs/cgroup/a")
"""

# What the failure of each test says.
SAID = {
    "planted_warning": r"the kernel logged 1 line of trouble .*\n +\[.*at fs/inode.c:1 planted",
    "planted_bug": r"the kernel logged 1 line of trouble .*\n +\[.*kernel BUG at fs/inode.c:2!",
    "oom_killer": r"the kernel logged \d+ lines? of trouble (.*\n)+.*oom-kill",
    "error_below_xfs": r"the kernel logged \d+ lines? of trouble (.*\n)+.*XFS \(dm-0\).*([Ss]hut|error)",
    "death_that_nobody_notices": r"panicked:\n(.*\n)*.*sysrq: Trigger a crash",
    "taint": r"the kernel is tainted since this test .*\n +W: the kernel issued a warning",
    "mount": r"1 thing was left behind .*\n +mount: tmpfs on /mnt/left \(from none\)",
    "cgroup": r"2 things were left behind .*\n +cgroup: /sys/fs/cgroup/left\n +cgroup: .*/left/below",
    "loop_device": r"left behind .*\n +loop device: /dev/loop\d+ on /tmp/image",
    "device_mapper": r"left behind .*\n +device-mapper device: left \(/dev/dm-0\)",
    "network_namespace": r"left behind .*\n(.*\n)* +network namespace: left\n",
    "namespace_of_a_process": r"left behind .*\n +network namespace: of process \d+ \(sleep\)",
    "superblock_out_of_sight": r"left behind .*\n +file system still in use: xfs\n +loop device: ",
    "devices_and_swap": r"left behind .*\n +block device: /dev/zram0\n +mount: configfs on .*\n"
    r" +null_blk device: left \(in configfs\)\n +swap area: /dev/zram0\n +\(",
    "module_in_use": r"1 thing was left behind .*\n +module still in use: null_blk \(\d references? more",
    "damaged_xfs": r"the xfs on /dev/loop0 .*is damaged .*xfs_repair -n -P says:\n(.*\n)*.*bad magic # 0x",
    "damaged_ext4": r"the ext4 on /dev/loop0 .*e2fsck -f -n says:\n(.*\n)*.*Superblock checksum does not",
    "damaged_btrfs": r"the btrfs on /dev/loop0 .*btrfs check .*says:\n(.*\n)*.*superblock checksum mismatch",
    "failed_already": r"its own failure(.*\n)+.*mount: tmpfs on /mnt/left",
}

SHARED = """
import pytest

pytestmark = pytest.mark.isolation("module")

def test_guilty(vm):
    vm.run("mkdir /sys/fs/cgroup/left; echo '<4>WARNING: CPU: 0 PID: 1 at planted' > /dev/kmsg", check=True)

def test_innocent(vm):
    assert vm.run(["true"]).succeeded

def test_innocent_too(vm):
    assert vm.run(["true"]).succeeded
"""


def _section(output: str, name: str) -> str:
    """What pytest tells of one failed test."""
    found = re.search(rf"^_+ (?:ERROR at teardown of )?test_{name}\[.*?(?=^_{{3,}} |^=)", output, re.M | re.S)
    assert found is not None, output
    return found[0]


def test_each_planted_fault_fails_its_test_and_no_other(oldest_or_newest: None, inner: InnerRun) -> None:
    inner.write(FAULTS)
    code, output = inner.run("-rA")
    assert code == 1
    for name, pattern in SAID.items():
        assert re.search(rf"^(FAILED|ERROR) .*::test_{name}\[", output, re.M), output
        assert re.search(pattern, _section(output, name)), _section(output, name)
    passed = set(re.findall(r"^PASSED .*::test_(\w+)\[", output, re.M)) - set(SAID)
    assert passed == {"allowed", "switched_off", "clean", "damaged_unseen"}, output
    assert not inner.machines()


def test_on_a_shared_machine_the_guilty_test_fails(oldest_or_newest: None, inner: InnerRun) -> None:
    inner.write(SHARED)
    code, output = inner.run("-rA")
    assert code == 1
    assert re.findall(r"^FAILED .*::test_(\w+)\[", output, re.M) == ["guilty"]
    assert len(re.findall(r"^PASSED .*::test_innocent", output, re.M)) == 2


def test_a_clean_log_and_nothing_left_pass(
    vm: VM, xfs_factory: XfsFactory, assert_dmesg_clean: AssertDmesgClean, assert_no_leaks: AssertNoLeaks
) -> None:
    assert_no_leaks()
    xfs_factory().umount()
    assert_dmesg_clean()


@pytest.mark.kernel_needs("module:null_blk", "module:zram", "module:brd", "module:sch_netem")
def test_modules_that_stay_loaded_are_no_leak(vm: VM, assert_no_leaks: AssertNoLeaks) -> None:
    for name in ("null_blk", "zram", "brd", "sch_netem"):
        vm.modprobe(name)
    # Both hold a module: a process, and what somebody set up.
    vm.run("tc qdisc add dev lo root netem delay 1ms", check=True)
    vm.run("sleep 600 < /dev/ram0 > /dev/null 2>&1 &", check=True)
    vm.run("until pgrep -x sleep; do :; done", check=True)
    assert_no_leaks(within=0.0)


@pytest.mark.checks(dmesg=False, leaks=False)
def test_the_assertions_see_it_within_the_test(
    vm: VM, assert_dmesg_clean: AssertDmesgClean, assert_no_leaks: AssertNoLeaks
) -> None:
    vm.run("mkdir /sys/fs/cgroup/left; echo '<4>BUG: planted' > /dev/kmsg", check=True)
    with pytest.raises(AssertionError, match="BUG: planted"):
        assert_dmesg_clean()
    assert_dmesg_clean(allow=["BUG: planted"])
    assert_dmesg_clean(also=["nobody says this"], allow=["BUG: planted"])
    with pytest.raises(AssertionError, match="kernelfs: what the test says"):
        assert_dmesg_clean(since=vm.mark_dmesg("what the test says"), also=["what the test \\w+"])
    assert_dmesg_clean(since=vm.mark_dmesg("later"))
    with pytest.raises(AssertionError, match=r"cgroup: /sys/fs/cgroup/left"):
        assert_no_leaks(within=0.1)
