"""Disks of a running machine: hot-plugged virtio-blk behind a throttle, one root port each."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.qemu.command import DISK_PORTS, port_name
from pytest_kernelfs.machines.qemu.qmp import Monitor

# Flushes end in the host's page cache: the host's own disk, which every other
# process shares, would otherwise decide how long a sync in the guest takes.
CACHE_MODE = {"direct": False, "no-flush": True}


class DiskBay:
    """The disks of one machine; their files lie in ``folder``."""

    def __init__(self, monitor: Monitor, folder: Path) -> None:
        self._monitor = monitor
        self._folder = folder
        self._numbers = itertools.count(1)
        self._ports: dict[str, int] = {}

    def attach(self, spec: DiskSpec) -> str:
        """Plug in a fresh sparse disk; gives its serial number.

        Raises: UsageError if all ports are taken; InfrastructureError.
        """
        port = next((index for index in range(DISK_PORTS) if index not in self._ports.values()), None)
        if port is None:
            raise UsageError(
                f"a machine holds {DISK_PORTS} disks and all are in use; put several file systems on one disk"
            )
        serial = f"kfs{next(self._numbers)}"
        path = self._path(serial)
        with explain_os_errors("make a disk", self._folder), path.open("wb") as file:
            file.truncate(spec.size)
        self._ports[serial] = port
        self._monitor.execute(
            "object-add", qom_type="throttle-group", id=f"limit-{serial}", limits=_limits(spec)
        )
        self._monitor.execute("blockdev-add", **_block_node(serial, path))
        self._monitor.execute(
            "device_add", driver="virtio-blk-pci", id=serial, drive=serial, serial=serial, bus=port_name(port)
        )
        return serial

    def detach(self, serial: str) -> None:
        """Unplug a disk, wait until the guest has let go of it, and remove its file.

        Raises: InfrastructureError if the guest does not let go.
        """
        if serial not in self._ports:
            raise InfrastructureError(f"there is no disk {serial} to detach")
        self._monitor.execute("device_del", id=serial)
        self._monitor.wait_deleted(serial)
        self._monitor.execute("blockdev-del", node_name=serial)
        self._monitor.execute("object-del", id=f"limit-{serial}")
        del self._ports[serial]
        self._path(serial).unlink(missing_ok=True)

    def throttle(self, serial: str, spec: DiskSpec) -> None:
        """Set the speed of a disk from now on. Raises: InfrastructureError."""
        self._monitor.execute(
            "qom-set", path=f"/objects/limit-{serial}", property="limits", value=_limits(spec)
        )

    def _path(self, serial: str) -> Path:
        return self._folder / f"{serial}.raw"


def _limits(spec: DiskSpec) -> dict[str, int]:
    # Zero means no limit, and is said, because setting limits keeps those it does not name.
    return {"bps-write": spec.write_bps, "bps-read": spec.read_bps, "iops-total": spec.iops}


def _block_node(serial: str, path: Path) -> dict[str, Any]:
    file = {"driver": "file", "filename": str(path), "cache": CACHE_MODE, "discard": "unmap"}
    raw = {"driver": "raw", "file": file, "cache": CACHE_MODE, "discard": "unmap"}
    return {
        "driver": "throttle",
        "node-name": serial,
        "throttle-group": f"limit-{serial}",
        "file": raw,
        "cache": CACHE_MODE,
        "discard": "unmap",
    }
