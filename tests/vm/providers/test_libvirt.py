"""The catalogue of fixtures and the example, in machines that libvirt runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

from tests.disks import tiny_root
from tests.vm.providers.libvirt_runs import OPTIONS, LibvirtRun

pytestmark = pytest.mark.usefixtures("newest_only")

_PROJECT = Path(__file__).parents[3]


def test_the_catalogue_of_fixtures_and_the_example_pass(libvirt: LibvirtRun) -> None:
    shutil.copy(_PROJECT / "tests/vm/test_catalogue.py", libvirt.folder / "test_inner.py")
    for path in (_PROJECT / "examples/overlay_umount").glob("*.py"):
        shutil.copy(path, libvirt.folder)
    example = str(libvirt.folder / "test_overlay_umount.py")
    code, output = libvirt.run(*OPTIONS, "--kernelfs-isolation=module", "-q", example, timeout=900)
    assert code == 0, output
    assert re.search(r"test_the_wait_is_for_writeback +passed", output)
    assert re.search(r"test_disk_factory +passed", output)
    assert libvirt.left() == []


SCOPES = """
    import pytest
    from pytest_kernelfs import Checkpoint, Preparer

    def test_disks_have_their_speed_and_change_it(vm, disk_factory):
        disk = disk_factory(size="256M", write_bps="10M", sector_size=4096)
        write = ["dd", "if=/dev/zero", f"of={disk.path}", "bs=1M", "count=20", "oflag=direct"]
        slow = vm.run(write, check=True).duration
        assert slow > 1.5
        disk.throttle()
        assert any(vm.run(write, check=True).duration < 0.7 * slow for _ in range(10))
        name = disk.path.rpartition("/")[2]
        assert vm.get(f"/sys/block/{name}/queue/logical_block_size") == b"4096\\n"
        assert vm.get(f"/sys/block/{name}/queue/write_cache") == b"write back\\n"

    def test_a_disk_without_a_cache(vm, disk_factory):
        name = disk_factory(size="64M", cache="writethrough").path.rpartition("/")[2]
        assert vm.get(f"/sys/block/{name}/queue/write_cache") == b"write through\\n"

    @pytest.mark.parametrize("number", range(2))
    def test_each_has_a_machine_of_its_own(vm, number):
        assert vm.run("test -e /root/mine").failed
        vm.run("touch /root/mine", check=True)

    def test_keys_are_pressed_from_outside(vm):
        assert "Show Blocked State" in vm.sysrq("w")
        assert "Show backtrace" in vm.sysrq("l")

    def test_large_content_comes_and_goes(vm):
        content = bytes(range(256)) * (20 << 10)
        vm.put(content, "/tmp/content")
        assert vm.get("/tmp/content") == content

    def test_a_power_cut_keeps_what_was_written(vm, disk, xfs_factory):
        xfs = xfs_factory(on=disk)
        xfs.write("file", "1M")
        xfs.sync()
        vm.power_cut(keep="written")
        vm.run(f"mkdir -p /mnt/x && mount {disk.path} /mnt/x", check=True)
        assert vm.run("stat -c %s /mnt/x/file").stdout == "1048576\\n"
        vm.run("umount /mnt/x", check=True)

    def test_a_record_of_flushes_is_not_there(disk_factory):
        disk_factory(power_cut=True)

    class TestCheckpoint:
        @pytest.fixture(scope="class")
        @classmethod
        def checkpoint(cls, prepare: Preparer) -> Checkpoint:
            machine = prepare()
            xfs = machine.xfs_factory(on=machine.disk_factory(size="512M", write_bps="40M"))
            xfs.write("file", "2M")
            machine.vm.run("echo kept > /root/file", check=True)
            return machine.checkpoint(xfs=xfs)

        @pytest.mark.parametrize("number", range(2))
        def test_each_fork_finds_all_and_ruins_all(self, vm, number):
            xfs = vm.kept["xfs"]
            assert vm.get("/root/file") == b"kept\\n"
            assert len(vm.get(f"{xfs.path}/file")) == 2 << 20
            vm.run(f"rm /root/file {xfs.path}/file && sync", check=True)
            assert xfs.disk.spec.write_bps == 40 << 20
            xfs.disk.throttle()
"""


def test_machines_do_what_those_of_qemu_do(libvirt: LibvirtRun) -> None:
    libvirt.write(dedent(SCOPES))
    code, output = libvirt.run(*OPTIONS, "-rs")
    assert code == 0, output
    assert "9 passed, 1 skipped" in output
    assert "the provider libvirt cannot keep a record of what a disk has flushed" in output
    assert libvirt.left() == []


IMAGE = """
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_each_has_the_image_as_it_was(vm, disk, number):
        assert "/ ext4 rw" in vm.run("cat /proc/mounts").stdout
        assert vm.run("test -e /root/mine").failed
        vm.run("echo mine > /root/mine; sync", check=True)
        vm.put(b"mine", disk.path)
"""


def test_the_system_of_a_disk_image_is_booted(libvirt: LibvirtRun) -> None:
    libvirt.write(dedent(IMAGE))
    image = tiny_root(libvirt.folder / "image.raw")
    before = image.read_bytes()
    code, output = libvirt.run(*OPTIONS, f"--kernelfs-image={image}", "-q")
    assert code == 0, output
    assert image.read_bytes() == before
    assert libvirt.left() == []
