"""The descriptions that libvirt is given: domains and their disks."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from pytest_kernelfs.guest.init import PORT_NAME
from pytest_kernelfs.machines.disk_image import SERIAL
from pytest_kernelfs.machines.libvirt.api import parse
from pytest_kernelfs.machines.machine import DiskSpec, MachineSpec

NAMESPACE = "urn:pytest-kernelfs"
CONSOLE_ALIAS = "charserial0"
# Every port costs each restored machine some milliseconds.
DISK_PORTS = 8
# The channel's controller, the source of random numbers and the root's disk take a port each.
_OTHER_PORTS = 3
# The place of the root's disk: out of the way of those that are attached.
_ROOT_TARGET = "vdz"
# The default translation cache of 1 GiB is reserved for each machine; none comes near it.
_TRANSLATION_CACHE_MIB = "128"
# libvirt can set that cache since this version.
_KNOWS_CACHE = 8000000


@dataclass(frozen=True)
class Plan:
    """A domain to be: ``accel`` is kvm or tcg, paths are the hypervisor's, ``initramfs`` may be left out.

    ``socket`` is the path of the socket for the agent's channel; ``libvirt`` is its version, as a number.
    ``root`` is the path of a qcow2 file with the system to boot, "" for the one in memory.
    """

    name: str
    uuid: str
    owner: str
    accel: str
    spec: MachineSpec
    kernel: str
    initramfs: str
    arguments: str
    socket: str
    libvirt: int
    root: str = ""


def domain_xml(plan: Plan) -> str:
    """The domain's description."""
    domain = ET.Element("domain", type="kvm" if plan.accel == "kvm" else "qemu")
    _text(domain, "name", plan.name)
    _text(domain, "uuid", plan.uuid)
    _text(domain, "genid")
    ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{NAMESPACE}}}owner", token=plan.owner)
    _text(domain, "memory", str(plan.spec.memory), unit="b")
    _text(domain, "vcpu", str(plan.spec.cpus))
    _boot(domain, plan)
    _processor(domain, plan)
    # A kernel that panics, reboots or powers off ends its machine.
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, event, "destroy")
    _devices(ET.SubElement(domain, "devices"), plan)
    return ET.tostring(domain, encoding="unicode")


def _boot(domain: ET.Element, plan: Plan) -> None:
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    _text(system, "kernel", plan.kernel)
    if plan.initramfs:
        _text(system, "initrd", plan.initramfs)
    _text(system, "cmdline", plan.arguments)


def _processor(domain: ET.Element, plan: Plan) -> None:
    features = ET.SubElement(domain, "features")
    for name in ("acpi", "apic"):
        ET.SubElement(features, name)
    ET.SubElement(features, "vmport", state="off")
    if plan.accel != "kvm" and plan.libvirt >= _KNOWS_CACHE:
        _text(ET.SubElement(features, "tcg"), "tb-cache", _TRANSLATION_CACHE_MIB, unit="MiB")
    ET.SubElement(domain, "cpu", mode="host-passthrough" if plan.accel == "kvm" else "maximum")
    clock = ET.SubElement(domain, "clock", offset="utc")
    ET.SubElement(clock, "timer", name="hpet", present="no")


def _devices(devices: ET.Element, plan: Plan) -> None:
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    if plan.root:
        devices.append(_root_disk(plan.root))
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for _ in range(DISK_PORTS + _OTHER_PORTS):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    # libvirt leads to no other kind of console from afar.
    ET.SubElement(devices, "serial", type="pty")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "source", mode="bind", path=plan.socket)
    ET.SubElement(channel, "target", type="virtio", name=PORT_NAME)
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")


def _root_disk(path: str) -> ET.Element:
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", cache="unsafe", discard="unmap")
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev=_ROOT_TARGET, bus="virtio")
    _text(disk, "serial", SERIAL)
    return disk


@dataclass(frozen=True)
class Plug:
    """A disk in a machine: its serial number, the name of its place ("vda"), the path of its raw file."""

    serial: str
    target: str
    path: str
    spec: DiskSpec


def disk_xml(plug: Plug) -> str:
    """The description of a disk.

    Flushes end in the page cache of the hypervisor's host, unless the disk has no write cache: then libvirt
    has every write go through to what its file lies on.
    """
    spec = plug.spec
    disk = ET.Element("disk", type="file", device="disk")
    cache = "writethrough" if spec.cache == "writethrough" else "unsafe"
    ET.SubElement(disk, "driver", name="qemu", type="raw", cache=cache, discard="unmap")
    ET.SubElement(disk, "source", file=plug.path)
    sectors = str(spec.sector_size)
    ET.SubElement(disk, "blockio", logical_block_size=sectors, physical_block_size=sectors)
    ET.SubElement(disk, "target", dev=plug.target, bus="virtio")
    limits = {name: value for name, value in io_limits(spec).items() if value}
    if limits:
        tune = ET.SubElement(disk, "iotune")
        for name, value in limits.items():
            _text(tune, name, str(value))
    _text(disk, "serial", plug.serial)
    return ET.tostring(disk, encoding="unicode")


def io_limits(spec: DiskSpec) -> dict[str, int]:
    """The speeds of a disk in libvirt's words; 0 for no limit."""
    return {
        "read_bytes_sec": spec.read_bps,
        "write_bytes_sec": spec.write_bps,
        "total_iops_sec": spec.iops,
    }


def disk_targets(xml: str) -> set[str]:
    """The places that are taken in a running domain."""
    return {target.get("dev", "") for target in parse(xml).iterfind("devices/disk/target")}


def with_disks(xml: str, plugs: dict[str, str]) -> str:
    """A domain's description with other files for its disks: old path -> new path."""
    domain = parse(xml)
    for disk in domain.iterfind("devices/disk"):
        source = disk.find("source")
        if source is None or source.get("file", "") not in plugs:
            continue
        source.set("file", plugs[source.get("file", "")])
        below = disk.find("backingStore")
        if below is not None:
            disk.remove(below)  # what lies below the new file is written in it
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, name: str, text: str = "", **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text or None
