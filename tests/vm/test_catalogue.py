"""Every public fixture, made, used and taken down on every kernel; what any leaves behind fails its test."""

from __future__ import annotations

from types import FunctionType

import pytest

from pytest_kernelfs import (
    VM,
    AssertDmesgClean,
    AssertNoDstate,
    AssertNoDyingCgroups,
    AssertNoLeaks,
    AssertReadUnder,
    AssertRttUnder,
    AssertSerialShape,
    AssertSpaceReclaimed,
    AssertUmountUnder,
    BrdFactory,
    Cgroup,
    CgroupFactory,
    Disk,
    DiskFactory,
    DmFactory,
    DropCaches,
    DynamicDebug,
    Filesystem,
    FilesystemFactory,
    HungTask,
    LoopDevice,
    LoopDeviceFactory,
    Measurement,
    ModuleParameter,
    NetnsPair,
    NetnsPairFactory,
    NullBlkFactory,
    Overlay,
    OverlayFactory,
    Probes,
    ScsiDebugFactory,
    StorageBackend,
    StorageBackendFactory,
    Sysctl,
    Tmpfs,
    Tracing,
    Writeback,
    Xfs,
    XfsFactory,
    ZramFactory,
)
from pytest_kernelfs import fixtures as public

# The kernel itself, what others stand on, and what lives longer than a test (see test_checkpoint.py).
NOT_HERE = {"kernel", "vm", "kernelfs_resources", "prepare", "checkpoint", "record_measurement"}
MIB = 1 << 20


def test_everything_public_is_in_the_catalogue() -> None:
    used = {name for test in _functions() for name in test.__code__.co_varnames[: test.__code__.co_argcount]}
    assert set(public.__all__) - used - NOT_HERE == set()


def _functions() -> list[FunctionType]:
    return [value for value in globals().values() if isinstance(value, FunctionType)]


def write_and_read(vm: VM, path: str) -> None:
    """A block device gives back what was written to it."""
    text = "catalogue" * 400
    vm.run(["dd", f"of={path}", "conv=fsync", "status=none"], input=text, check=True)
    vm.run("echo 3 > /proc/sys/vm/drop_caches", check=True)
    assert vm.run(["head", "-c", str(len(text)), path], check=True).stdout == text


def test_disk(vm: VM, disk: Disk) -> None:
    write_and_read(vm, disk.path)


def test_disk_factory(vm: VM, disk_factory: DiskFactory) -> None:
    write_and_read(vm, disk_factory(size="64M", write_bps="50M", iops=1000, sector_size=4096).path)
    write_and_read(vm, disk_factory(size="64M", cache="writethrough").path)


def test_loop_device(vm: VM, loop_device: LoopDevice) -> None:
    write_and_read(vm, loop_device.path)


def test_loop_device_factory(
    vm: VM, loop_device_factory: LoopDeviceFactory, disk: Disk, filesystem_factory: FilesystemFactory
) -> None:
    ext4 = filesystem_factory("ext4", on=disk)
    write_and_read(vm, loop_device_factory(size="32M", on=ext4, direct_io=True, sector_size=4096).path)
    assert vm.run(["dd", "if=/dev/zero", f"of={loop_device_factory(read_only=True).path}", "count=1"]).failed


@pytest.mark.kernel_needs("module:null_blk")
def test_null_blk_factory(vm: VM, null_blk_factory: NullBlkFactory) -> None:
    write_and_read(vm, null_blk_factory(size="64M").path)


@pytest.mark.kernel_needs("module:zram")
def test_zram_factory(vm: VM, zram_factory: ZramFactory) -> None:
    write_and_read(vm, zram_factory(size="64M").path)


@pytest.mark.kernel_needs("module:brd")
def test_brd_factory(vm: VM, brd_factory: BrdFactory) -> None:
    write_and_read(vm, brd_factory(size="32M").path)


@pytest.mark.kernel_needs("module:scsi_debug")
def test_scsi_debug_factory(vm: VM, scsi_debug_factory: ScsiDebugFactory) -> None:
    write_and_read(vm, scsi_debug_factory(size="32M").path)


@pytest.mark.kernel_needs("module:dm_mod")
def test_dm_factory(vm: VM, dm_factory: DmFactory, loop_device: LoopDevice) -> None:
    write_and_read(vm, dm_factory.linear(on=loop_device).path)


@pytest.mark.parametrize("kind", ["xfs", "ext4", "btrfs"])
def test_filesystem_factory(filesystem_factory: FilesystemFactory, kind: str) -> None:
    made = filesystem_factory(kind)
    made.write("file", "1M")
    made.sync()


def test_xfs(vm: VM, xfs: Xfs) -> None:
    xfs.write("file", "1M")
    assert vm.run(["stat", "-f", "-c", "%T", xfs.path]).stdout.strip() == "xfs"


def test_xfs_factory(xfs_factory: XfsFactory, disk: Disk) -> None:
    xfs_factory(on=disk, options=["noatime"]).write("file", "1M")


def test_ext4(ext4: Filesystem) -> None:
    ext4.write("file", "1M")


def test_btrfs(btrfs: Filesystem) -> None:
    btrfs.write("file", "1M")


def test_tmpfs(tmpfs: Tmpfs) -> None:
    tmpfs.write("file", "1M")


def test_overlay(vm: VM, overlay: Overlay) -> None:
    overlay.write("file", "1M")
    assert vm.run(["stat", "-c", "%s", f"{overlay.upper}/file"]).stdout.strip() == str(MIB)


def test_overlay_factory(overlay_factory: OverlayFactory, ext4: Filesystem) -> None:
    overlay_factory(on=ext4, lower=[{"a": "1"}, {"b": "2"}], metacopy=True).write("a", "4K")


@pytest.mark.parametrize("storage_backend", ["btrfs"], indirect=True)
def test_storage_backends(
    storage_backend: StorageBackend, storage_backend_factory: StorageBackendFactory
) -> None:
    for backend in (storage_backend, storage_backend_factory("overlay-ext4", size="64M")):
        container = backend.container(backend.image({"file": "content"}))
        container.write("new", "64K")
        assert backend.container(container.commit()).read("file") == b"content"
        container.remove()


def test_sysctl(vm: VM, sysctl: Sysctl) -> None:
    sysctl["vm.dirty_background_bytes"] = 16 * MIB
    assert vm.run("sysctl -n vm.dirty_background_bytes").stdout.strip() == str(16 * MIB)


def test_writeback(writeback: Writeback, xfs: Xfs) -> None:
    writeback.hold()
    xfs.write("file", "16M")
    assert writeback.dirty() >= 8 * MIB
    writeback.force()


def test_drop_caches(drop_caches: DropCaches) -> None:
    drop_caches()


def test_module_parameter(module_parameter: ModuleParameter) -> None:
    before = module_parameter("overlay", "metacopy")
    assert module_parameter("overlay", "metacopy", not before) is (not before)


@pytest.mark.kernel_needs("config:DYNAMIC_DEBUG")
def test_dynamic_debug(dynamic_debug: DynamicDebug) -> None:
    assert dynamic_debug("file lib/kobject.c +p") > 0


@pytest.mark.kernel_needs("config:DETECT_HUNG_TASK")
def test_hung_task(hung_task: HungTask, sysctl: Sysctl) -> None:
    hung_task(timeout=7)
    assert sysctl["kernel.hung_task_timeout_secs"] == 7


def test_tracing(tracing: Tracing, loop_device: LoopDevice, vm: VM) -> None:
    with tracing.events("block:block_rq_issue") as trace:
        vm.run(["dd", "if=/dev/zero", f"of={loop_device.path}", "count=1", "oflag=direct"], check=True)
    assert trace.named("block_rq_issue")


def test_netns_pair(netns_pair: NetnsPair) -> None:
    assert netns_pair.left.run("ip addr").succeeded


@pytest.mark.kernel_needs("module:sch_netem")
def test_netns_pair_factory(netns_pair_factory: NetnsPairFactory) -> None:
    assert netns_pair_factory(delay="5ms").rtt(duration=0.2).measurement.median > 0.005


def test_probes(vm: VM, probes: Probes) -> None:
    with probes.sampling("meminfo", interval=0.05) as seen:
        vm.run(["sleep", "0.2"])
    assert seen["Dirty"].max >= 0


def test_assert_umount_under(overlay: Overlay, assert_umount_under: AssertUmountUnder) -> None:
    overlay.write("file", "64K")
    assert_umount_under(60.0)


def test_assert_serial_shape(assert_serial_shape: AssertSerialShape) -> None:
    assert_serial_shape([1.0, 0.01, 0.01])


def test_assert_space_reclaimed(vm: VM, xfs: Xfs, assert_space_reclaimed: AssertSpaceReclaimed) -> None:
    xfs.write("file", "8M")
    with assert_space_reclaimed(xfs, at_least="7M", within=60):
        vm.run(["rm", f"{xfs.path}/file"], check=True)


def test_assert_rtt_under(assert_rtt_under: AssertRttUnder) -> None:
    assert_rtt_under(60.0, duration=0.2)


def test_assertions_that_look_at_the_machine(
    vm: VM,
    assert_no_dstate: AssertNoDstate,
    assert_dmesg_clean: AssertDmesgClean,
    assert_no_leaks: AssertNoLeaks,
) -> None:
    assert_no_dstate()
    assert_dmesg_clean()
    assert_no_leaks()
    assert Measurement.of("nothing", "s", [0.0]).max == 0.0


@pytest.mark.kernel_needs("cgroup:v2:memory")
def test_cgroup(cgroup: Cgroup, assert_read_under: AssertReadUnder) -> None:
    cgroup.run(["true"], check=True)
    assert_read_under(cgroup.file("memory.stat"), 60.0)


@pytest.mark.kernel_needs("cgroup:v2:memory")
def test_cgroup_factory(cgroup_factory: CgroupFactory, assert_no_dying_cgroups: AssertNoDyingCgroups) -> None:
    cgroup_factory(memory_max="64M").create("child").remove()
    assert_no_dying_cgroups()


@pytest.mark.kernel_needs("cgroup:v1:pids")
def test_cgroup_factory_of_version_1(cgroup_factory: CgroupFactory) -> None:
    cgroup_factory(version=1, controllers=["pids"]).create("child").remove()
