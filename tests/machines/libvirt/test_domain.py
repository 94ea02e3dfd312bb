"""The descriptions that libvirt is given."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from pytest_kernelfs.machines.libvirt.domain import (
    DISK_PORTS,
    NAMESPACE,
    Plan,
    Plug,
    disk_targets,
    disk_xml,
    domain_xml,
    io_limits,
    with_disks,
)
from pytest_kernelfs.machines.machine import DiskSpec, MachineSpec

PLAN = Plan(
    name="kernelfs-1-2-3",
    uuid="3e41ec5c-0cd5-4c4f-a5a1-9b1f0f9d6b5e",
    owner="who",
    accel="tcg",
    spec=MachineSpec(512 << 20, 2),
    kernel="/pool/file1",
    initramfs="/pool/file2",
    arguments="console=ttyS0 panic=-1",
    socket="/pool/a1",
    libvirt=9000000,
)


def described(plan: Plan) -> ET.Element:
    return ET.fromstring(domain_xml(plan))


def test_a_domain_boots_the_kernel_with_our_root() -> None:
    domain = described(PLAN)
    assert domain.findtext("os/kernel") == "/pool/file1"
    assert domain.findtext("os/initrd") == "/pool/file2"
    assert domain.findtext("os/cmdline") == "console=ttyS0 panic=-1"
    assert domain.findtext("memory") == str(512 << 20)
    assert domain.findtext("vcpu") == "2"
    assert domain.find("devices/disk") is None


def test_an_initramfs_may_be_left_out() -> None:
    assert described(replace(PLAN, initramfs="")).find("os/initrd") is None


def test_a_domain_ends_with_its_kernel() -> None:
    domain = described(PLAN)
    assert {domain.findtext(event) for event in ("on_poweroff", "on_reboot", "on_crash")} == {"destroy"}


def test_a_domain_tells_who_owns_it() -> None:
    owner = described(PLAN).find(f"metadata/{{{NAMESPACE}}}owner")
    assert owner is not None
    assert owner.get("token") == "who"


def test_the_agent_finds_its_port() -> None:
    domain = described(PLAN)
    target = domain.find("devices/channel/target")
    source = domain.find("devices/channel/source")
    assert target is not None
    assert source is not None
    assert (target.get("type"), target.get("name"), source.get("path")) == ("virtio", "kernelfs", "/pool/a1")


@pytest.mark.parametrize(
    ("accel", "libvirt", "kind", "mode", "cache"),
    [
        ("kvm", 9000000, "kvm", "host-passthrough", None),
        ("tcg", 9000000, "qemu", "maximum", "128"),
        ("tcg", 7000000, "qemu", "maximum", None),
    ],
)
def test_the_processor_is_the_accelerators(
    accel: str, libvirt: int, kind: str, mode: str, cache: str | None
) -> None:
    domain = described(replace(PLAN, accel=accel, libvirt=libvirt))
    processor = domain.find("cpu")
    assert processor is not None
    assert (domain.get("type"), processor.get("mode")) == (kind, mode)
    assert domain.findtext("features/tcg/tb-cache") == cache


def test_there_is_a_port_for_each_disk_and_what_else_is_there() -> None:
    ports = [
        port
        for port in described(PLAN).iterfind("devices/controller")
        if port.get("model") == "pcie-root-port"
    ]
    assert len(ports) == DISK_PORTS + 3


def test_a_disk_image_is_a_disk_of_the_domain() -> None:
    disk = described(replace(PLAN, root="/pool/layer3")).find("devices/disk")
    assert disk is not None
    assert disk.findtext("serial") == "kernelfs-image"
    assert disk.find("source[@file='/pool/layer3']") is not None
    assert disk.find("driver[@type='qcow2']") is not None


def plug(**changes: object) -> ET.Element:
    spec = replace(DiskSpec(1 << 30), **changes)  # type: ignore[arg-type]
    return ET.fromstring(disk_xml(Plug("kfs1", "vdb", "/pool/disk1", spec)))


def test_a_disk_has_its_number_place_and_file() -> None:
    disk = plug(sector_size=4096)
    assert disk.findtext("serial") == "kfs1"
    assert disk.find("target[@dev='vdb']") is not None
    assert disk.find("source[@file='/pool/disk1']") is not None
    assert disk.find("blockio[@logical_block_size='4096']") is not None
    assert disk.find("iotune") is None


def test_a_disk_without_a_write_cache_writes_through() -> None:
    assert plug(cache="writethrough").find("driver[@cache='writethrough']") is not None
    assert plug().find("driver[@cache='unsafe']") is not None


def test_speeds_are_told_in_libvirts_words() -> None:
    disk = plug(write_bps=100, iops=7)
    assert {limit.tag: limit.text for limit in disk.iterfind("iotune/*")} == {
        "write_bytes_sec": "100",
        "total_iops_sec": "7",
    }


def test_no_speed_is_said_too_where_there_was_one() -> None:
    assert io_limits(DiskSpec(1)) == {"read_bytes_sec": 0, "write_bytes_sec": 0, "total_iops_sec": 0}


RUNNING = """
<domain><devices>
 <disk><source file='/a'/><backingStore><source file='/below'/></backingStore><target dev='vda'/></disk>
 <disk><source file='/b'/><backingStore/><target dev='vdz'/></disk>
 <disk><target dev='sda'/></disk>
</devices></domain>
"""


def test_the_places_that_are_taken() -> None:
    assert disk_targets(RUNNING) == {"vda", "vdz", "sda"}


def test_other_files_for_the_disks_bring_along_what_lies_below_them() -> None:
    disks = ET.fromstring(with_disks(RUNNING, {"/a": "/new"})).findall("devices/disk")
    assert disks[0].find("source[@file='/new']") is not None
    assert disks[0].find("backingStore") is None
    assert disks[1].find("source[@file='/b']") is not None
    assert disks[1].find("backingStore") is not None
