"""A Debian with systemd, booted from its image with a kernel that is not in it: fixtures work as ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.fixtures.machines import RUN
from pytest_kernelfs.machines.vagrant import box
from tests.vm.inner import InnerRun

INNER = """
import pytest

from pytest_kernelfs.errors import KernelMisbehaved


def test_systemd_is_up_on_the_kernel_under_test(vm, kernel):
    told = vm.run("systemctl is-system-running; systemctl is-active dbus systemd-journald", check=True)
    assert told.stdout.split() == ["running", "active", "active"]
    assert vm.run("uname -r").stdout.strip() == kernel.release
    assert vm.run("cat /proc/1/comm").stdout == "systemd\\n"
    assert "ID=debian" in vm.run("cat /etc/os-release").stdout
    assert vm.run("env | grep -e PYTHON -e LD_").failed
    vm.run("echo mine > /etc/mine && sync", check=True)


def test_nothing_of_another_test_is_there(vm):
    assert vm.run("test -e /etc/mine").failed


def test_the_kernel_loads_modules_with_the_programs_of_the_image(vm, filesystem_factory):
    assert vm.run("grep -w btrfs /proc/filesystems").failed
    made = filesystem_factory(kind="btrfs")
    vm.run(["touch", f"{made.path}/file"], check=True)
    vm.modprobe("dm_delay")
    vm.modprobe("nbd")  # which the archive has not


def test_file_systems_on_disks(vm, disk_factory, xfs_factory, overlay_factory):
    overlay = overlay_factory(on=xfs_factory(on=disk_factory(size="512M")))
    overlay.write("file", "1M")
    overlay.assert_umount_under(120.0)


def test_cgroups_lie_where_systemd_lets_them(vm, cgroup_factory):
    group = cgroup_factory(memory_max="64M", pids_max=20, cpu_max=0.5)
    assert "/system.slice/kernelfs.service/" in group.path
    assert group.path.partition("/sys/fs/cgroup")[2] in group.run("cat /proc/self/cgroup").stdout
    child = group.create("child", controllers=["memory"])
    vm.run("systemctl daemon-reload && systemctl start systemd-hostnamed", check=True, timeout=120)
    assert group.read("memory.max") == 64 << 20
    assert child.read("memory.stat")["anon"] >= 0


class TestFromACheckpoint:
    @pytest.fixture(scope="class")
    def checkpoint(self, prepare):
        machine = prepare()
        machine.vm.run("echo prepared > /etc/prepared", check=True)
        return machine.checkpoint(filesystem=machine.xfs_factory(on=machine.disk_factory(size="512M")))

    @pytest.mark.parametrize("number", range(2))
    def test_a_fork_has_what_was_prepared(self, checkpoint, vm, number):
        assert vm.run("cat /etc/prepared", check=True).stdout == "prepared\\n"
        vm.run(f"rm /etc/prepared; touch {vm.kept['filesystem'].path}/{number}; sync", check=True)
        assert vm.run(f"ls {vm.kept['filesystem'].path}").stdout == f"{number}\\n"


def test_after_a_power_cut_the_root_is_that_of_a_fresh_machine(vm, disk_factory):
    disk_factory(size="64M", power_cut=True)
    vm.run("echo mine > /etc/mine && sync", check=True)
    vm.power_cut()
    assert vm.run("test -e /etc/mine").failed
    assert vm.run("systemctl is-system-running").stdout == "running\\n"


@pytest.mark.checks(leaks=False)
def test_a_shutdown_is_told(vm):
    with pytest.raises(KernelMisbehaved, match="was shut down or rebooted"):
        vm.run("systemctl poweroff", timeout=120)
        while True:
            vm.run("sleep 0.2")  # which systemd kills in the end, but not the agent
"""


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> Path:
    """The disk of the box that the recipe in the folder "vagrant" builds, made once."""
    home = box.home_with_box(Cache(request.config.stash[RUN].config.cache_root))
    return next(home.glob("boxes/*/**/box.img"))


@pytest.mark.usefixtures("newest_only")
def test_an_image_with_systemd_serves_tests(
    image: Path, inner: InnerRun, request: pytest.FixtureRequest
) -> None:
    before = hashlib.sha256(image.read_bytes()).digest()
    inner.write(INNER)
    cache = request.config.stash[RUN].config.cache_root
    options = [f"--kernelfs-image={image}", f"--kernelfs-cache={cache}", "--kernelfs-boot-timeout=240", "-vv"]
    code, output = inner.run(*options)
    assert code == 0, output
    assert hashlib.sha256(image.read_bytes()).digest() == before
