"""QEMU's command line: one for every kernel and machine, booted or forked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import disk_image
from pytest_kernelfs.machines.boot import kernel_arguments
from pytest_kernelfs.machines.disk_image import DiskImage
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.binary import Qemu

# Names below a machine's folder.
QMP_SOCKET = "qmp"
AGENT_SOCKET = "agent"
CONSOLE = "console.log"
# What QEMU takes for a pair of pipes, by this name with ".in" and ".out": the second leads to the log.
CONSOLE_PIPE = "console"
# The name of the serial console's other end in QEMU.
CONSOLE_DEVICE = "console"
# Beside a saved machine's memory: the first part of its kernel.
KERNEL_HEAD = "kernel-head"

# Eight root ports share a slot as its functions; every port takes one disk at a time.
_PORTS_PER_SLOT = 8
_FIRST_SLOT = 0x10
# Every port costs each fork 3 ms: firmware tables and devices to restore.
DISK_PORTS = 8


@dataclass(frozen=True)
class Memory:
    """A file that holds a machine's memory. What a machine writes to it is kept only if it is ``shared``."""

    path: Path
    shared: bool


@dataclass(frozen=True)
class Launch:
    """All that decides how a machine comes up.

    Without ``memory`` its memory is anonymous. With ``incoming`` it waits for a saved state instead of
    booting. ``scratch`` is where the machine may put what is large.

    With ``image`` it boots the system of a disk image; ``layers`` are what saved machines wrote on top.
    """

    qemu: Qemu
    accel: str
    kernel: Kernel
    initramfs: Path
    spec: MachineSpec
    memory: Memory | None = None
    incoming: bool = False
    scratch: Path = Path()
    image: DiskImage | None = None
    partition: str = ""
    layers: tuple[Path, ...] = ()


def qemu_command(launch: Launch, folder: Path, disks: Sequence[str] = ()) -> list[str]:
    """The command; sockets and the console lie in ``folder``, ``disks`` are options for disks."""
    kernel, spec = launch.kernel, launch.spec
    return [
        str(launch.qemu.path),
        "-name", f"kernelfs-{kernel.version}",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *_machine(launch), *_accelerator(launch.accel),
        "-smp", str(spec.cpus),
        *_boot(launch),
        "-chardev", f"pipe,id={CONSOLE_DEVICE},path={_escaped(folder / CONSOLE_PIPE)}",
        "-serial", f"chardev:{CONSOLE_DEVICE}",
        "-qmp", f"unix:{_escaped(folder / QMP_SOCKET)},server=on,wait=off",
        "-device", "vmgenid,guid=auto",
        "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={_escaped(folder / AGENT_SOCKET)},server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=kernelfs",
        *_disk_ports(),
        *disks,
        *(["-incoming", "defer"] if launch.incoming else []),
    ]  # fmt: skip


def port_name(index: int) -> str:
    """The bus that disk number ``index`` is plugged into."""
    return f"port{index}"


def _machine(launch: Launch) -> list[str]:
    machine = "q35,usb=off,vmport=off,hpet=off"
    if launch.memory is None:
        return ["-machine", machine, "-m", _mebibytes(launch.spec)]
    backend = (
        f"memory-backend-file,id=ram,size={_mebibytes(launch.spec)},mem-path={_escaped(launch.memory.path)},"
        f"share={'on' if launch.memory.shared else 'off'}"
    )
    return ["-machine", f"{machine},memory-backend=ram", "-m", _mebibytes(launch.spec), "-object", backend]


def _boot(launch: Launch) -> list[str]:
    """What to boot.

    A saved machine has kernel and root in memory already. QEMU only wants to see some kernel, for the
    machine to have the same parts; to read the real ones once more takes longer than the rest of its start.
    """
    if launch.incoming and launch.memory is not None:
        files = ["-kernel", str(launch.memory.path.with_name(KERNEL_HEAD))]
    else:
        files = ["-kernel", str(launch.kernel.boot_image), "-initrd", str(launch.initramfs)]
    parameters = [kernel_arguments(launch.accel)]
    if launch.image is not None:
        parameters.append(disk_image.arguments(launch.partition))
    return [*files, "-append", " ".join([*parameters, launch.spec.boot_parameters]).rstrip()]


def _escaped(path: Path) -> str:
    """A path within an option that QEMU takes apart at commas."""
    return str(path).replace(",", ",,")


def _mebibytes(spec: MachineSpec) -> str:
    return f"{spec.memory >> 20}M"


def _accelerator(accel: str) -> list[str]:
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # The default translation cache of 1 GiB is reserved for each machine; none comes near it.
    return ["-accel", "tcg,tb-size=128", "-cpu", "max"]


def _disk_ports() -> list[str]:
    options = []
    for index in range(DISK_PORTS):
        slot, function = divmod(index, _PORTS_PER_SLOT)
        multifunction = ",multifunction=on" if function == 0 else ""
        address = f"{_FIRST_SLOT + slot:#x}.{function:#x}"
        options += [
            "-device",
            f"pcie-root-port,id={port_name(index)},chassis={index + 1},addr={address}{multifunction}",
        ]
    return options
