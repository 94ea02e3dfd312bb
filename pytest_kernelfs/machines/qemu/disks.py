"""Disks of a running machine: hot-plugged virtio-blk behind a throttle, one root port each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Plug:
    """A disk in its port. ``base`` is the image it starts from in a fork: empty, on top of what was saved."""

    serial: str
    port: int
    spec: DiskSpec
    base: Path | None = None

    def options(self, folder: Path) -> list[str]:
        """QEMU's options for a disk that is there from the start, its image in ``folder``."""
        node = _block_node(
            self.serial, {"driver": "qcow2", "file": _file_node(folder / f"{self.serial}.qcow2")}
        )
        limits = {"qom-type": "throttle-group", "id": _limit(self.serial), "limits": _limits(self.spec)}
        return [
            "-object", json.dumps(limits),
            "-blockdev", json.dumps(node),
            "-device", json.dumps({"driver": "virtio-blk-pci", **self.device()}),
        ]  # fmt: skip

    def device(self) -> dict[str, Any]:
        """The device's properties."""
        names = dict.fromkeys(("id", "drive", "serial"), self.serial)
        return {**names, "bus": port_name(self.port)}


class DiskBay:
    """The disks of one machine; their files lie in ``folder``. ``plugs`` are those it came up with."""

    def __init__(self, monitor: Monitor, folder: Path, plugs: Sequence[Plug] = ()) -> None:
        self._monitor = monitor
        self._folder = folder
        self._plugs = {plug.serial: plug for plug in plugs}
        self._numbers = itertools.count(len(plugs) + 1)

    def attach(self, spec: DiskSpec) -> str:
        """Plug in a fresh sparse disk; gives its serial number.

        Raises: UsageError if all ports are taken; InfrastructureError.
        """
        taken = {plug.port for plug in self._plugs.values()}
        port = next((index for index in range(DISK_PORTS) if index not in taken), None)
        if port is None:
            raise UsageError(
                f"a machine holds {DISK_PORTS} disks and all are in use; put several file systems on one disk"
            )
        plug = Plug(self._free_serial(), port, spec)
        path = self._path(plug.serial)
        with explain_os_errors("make a disk", self._folder), path.open("wb") as file:
            file.truncate(spec.size)
        self._plugs[plug.serial] = plug
        execute = self._monitor.execute
        execute("object-add", qom_type="throttle-group", id=_limit(plug.serial), limits=_limits(spec))
        execute("blockdev-add", **_block_node(plug.serial, {"driver": "raw", "file": _file_node(path)}))
        execute("device_add", driver="virtio-blk-pci", **plug.device())
        return plug.serial

    def _free_serial(self) -> str:
        return next(serial for number in self._numbers if (serial := f"kfs{number}") not in self._plugs)

    def detach(self, serial: str) -> None:
        """Unplug a disk, wait until the guest has let go of it, and remove its file.

        Raises: InfrastructureError if the guest does not let go.
        """
        if serial not in self._plugs:
            raise InfrastructureError(f"there is no disk {serial} to detach")
        self._monitor.execute("device_del", id=serial)
        self._monitor.wait_deleted(serial)
        self._monitor.execute("blockdev-del", node_name=serial)
        self._monitor.execute("object-del", id=_limit(serial))
        del self._plugs[serial]
        self._path(serial).unlink(missing_ok=True)

    def throttle(self, serial: str, spec: DiskSpec) -> None:
        """Set the speed of a disk from now on. Raises: InfrastructureError."""
        self._monitor.execute(
            "qom-set", path=f"/objects/{_limit(serial)}", property="limits", value=_limits(spec)
        )
        self._plugs[serial] = replace(self._plugs[serial], spec=spec)

    def make_bases(self, folder: Path) -> tuple[Plug, ...]:
        """Make for each disk an empty image in ``folder`` on top of its file, which is to be moved there.

        Raises: InfrastructureError.
        """
        return tuple(self._make_base(plug, folder) for plug in self._plugs.values())

    def _make_base(self, plug: Plug, folder: Path) -> Plug:
        if plug.base is not None:
            raise UsageError("a machine that was forked from a checkpoint cannot be saved as another")
        base = folder / f"{plug.serial}.qcow2"
        base.touch()
        node = f"base-{plug.serial}"
        options = {
            "driver": "qcow2",
            "file": node,
            "size": plug.spec.size,
            "backing-file": str(folder / self._path(plug.serial).name),
            "backing-fmt": "raw",
        }
        self._monitor.execute("blockdev-add", driver="file", filename=str(base), node_name=node)
        self._monitor.execute("blockdev-create", job_id=node, options=options)
        self._monitor.finish_job(node)
        self._monitor.execute("blockdev-del", node_name=node)
        return replace(plug, base=base)

    def _path(self, serial: str) -> Path:
        return self._folder / f"{serial}.raw"


def _limits(spec: DiskSpec) -> dict[str, int]:
    # Zero means no limit, and is said, because setting limits keeps those it does not name.
    return {"bps-write": spec.write_bps, "bps-read": spec.read_bps, "iops-total": spec.iops}


def _limit(serial: str) -> str:
    return f"limit-{serial}"


def _file_node(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path), "cache": CACHE_MODE, "discard": "unmap"}


def _block_node(serial: str, image: dict[str, Any]) -> dict[str, Any]:
    """A disk's image behind its throttle."""
    return {
        "driver": "throttle",
        "node-name": serial,
        "throttle-group": _limit(serial),
        "file": {**image, "cache": CACHE_MODE, "discard": "unmap"},
        "cache": CACHE_MODE,
        "discard": "unmap",
    }
