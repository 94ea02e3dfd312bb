"""Disks of a running machine: hot-plugged virtio-blk behind a throttle, one root port each."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.qemu import write_log
from pytest_kernelfs.machines.qemu.command import DISK_PORTS, port_name
from pytest_kernelfs.machines.qemu.qmp import Monitor
from pytest_kernelfs.sizes import format_size

# Flushes end in the host's page cache: the host's own disk, which every other
# process shares, would otherwise decide how long a sync in the guest takes.
CACHE_MODE = {"direct": False, "no-flush": True}
# The node that notes flushes has to be told of them.
_FLUSHED_MODE = {"direct": False, "no-flush": False}


@dataclass(frozen=True)
class Plug:
    """A disk in its port.

    Its image is a raw file of its own, or, if there is a ``below``, a qcow2 file on top of that raw file.
    In a fork the qcow2 file begins as a copy of ``base``, and what is below belongs to the checkpoint.
    """

    serial: str
    port: int
    spec: DiskSpec
    base: Path | None = None
    below: Path | None = None

    def image(self, folder: Path) -> Path:
        """Its image in the machine's folder."""
        return folder / f"{self.serial}.{'raw' if self.below is None else 'qcow2'}"

    def log(self, folder: Path) -> Path:
        """The record of its writes in the machine's folder."""
        return folder / f"{self.serial}.log"

    def options(self, folder: Path) -> list[str]:
        """QEMU's options for a disk that is there from the start, its image in ``folder``."""
        return [
            "-object", json.dumps({"qom-type": "throttle-group", **self.limit()}),
            "-blockdev", json.dumps(self.node(folder)),
            "-device", json.dumps(self.device()),
        ]  # fmt: skip

    def limit(self) -> dict[str, Any]:
        """The object that limits its speed."""
        return {"id": _limit(self.serial), "limits": _limits(self.spec)}

    def node(self, folder: Path) -> dict[str, Any]:
        """Its image behind its throttle; between them, the log of what the throttle let through."""
        driver = "raw" if self.below is None else "qcow2"
        content = _node(driver, CACHE_MODE, file=_file_node(self.image(folder)))
        mode = CACHE_MODE
        if self.spec.power_cut:
            mode = _FLUSHED_MODE
            log = {"log": _file_node(self.log(folder)), "log-sector-size": write_log.SECTOR}
            content = _node("blklogwrites", mode, file=content, **log)
        named = {"node-name": self.serial, "throttle-group": _limit(self.serial)}
        return _node("throttle", mode, file=content, **named)

    def device(self) -> dict[str, Any]:
        """The device and its properties."""
        spec = self.spec
        sectors = dict.fromkeys(("logical_block_size", "physical_block_size"), spec.sector_size)
        names = dict.fromkeys(("id", "drive", "serial"), self.serial)
        cache: dict[str, Any] = {"write-cache": "on"}
        if spec.cache == "writethrough":
            # The guest could switch the cache on again if it were allowed to.
            cache = {"write-cache": "off", "config-wce": False}
        # A throttle lets a request through as a whole: one merged of many would be a burst of any size.
        cache["request-merging"] = False
        return {"driver": "virtio-blk-pci", **names, "bus": port_name(self.port), **sectors, **cache}


class DiskBay:
    """The disks of one machine; their files lie in ``folder``. ``plugs`` are those it came up with."""

    def __init__(self, monitor: Monitor, folder: Path, plugs: Sequence[Plug] = ()) -> None:
        self._monitor = monitor
        self._folder = folder
        self._plugs = {plug.serial: plug for plug in plugs}
        self._numbers = itertools.count(len(plugs) + 1)

    @property
    def plugs(self) -> tuple[Plug, ...]:
        """The disks that are there now."""
        return tuple(self._plugs.values())

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
        path = plug.image(self._folder)
        with explain_os_errors("make a disk", self._folder), path.open("wb") as file:
            _make_sparse(file, spec.size)
        self._plug_in(plug)
        return plug.serial

    def adopt(self, plug: Plug, content: Path) -> None:
        """Plug in a disk of a machine that ended, under its number; ``content``, a raw file, is moved here.

        Raises: InfrastructureError.
        """
        if not plug.spec.power_cut:
            mine = replace(plug, base=None, below=None)
            content.rename(mine.image(self._folder))
        else:
            # The log of a disk tells what came on top of the content that it started with.
            mine = replace(plug, base=None, below=self._folder / f"{plug.serial}.below")
            content.rename(self._folder / f"{plug.serial}.below")
            self._make_image(mine, mine.image(self._folder))
        self._plug_in(mine)

    def _plug_in(self, plug: Plug) -> None:
        if plug.spec.power_cut:
            with explain_os_errors("make the log of a disk", self._folder):
                plug.log(self._folder).touch()
        self._plugs[plug.serial] = plug
        execute = self._monitor.execute
        execute("object-add", qom_type="throttle-group", **plug.limit())
        execute("blockdev-add", **plug.node(self._folder))
        execute("device_add", **plug.device())

    def _free_serial(self) -> str:
        return next(serial for number in self._numbers if (serial := f"kfs{number}") not in self._plugs)

    def detach(self, serial: str) -> None:
        """Unplug a disk, wait until the guest has let go of it, and remove its files.

        Raises: InfrastructureError if the guest does not let go.
        """
        if serial not in self._plugs:
            raise InfrastructureError(f"there is no disk {serial} to detach")
        self._monitor.execute("device_del", id=serial)
        self._monitor.wait_deleted(serial)
        self._monitor.execute("blockdev-del", node_name=serial)
        self._monitor.execute("object-del", id=_limit(serial))
        del self._plugs[serial]
        for path in self._folder.glob(f"{serial}.*"):
            path.unlink(missing_ok=True)

    def throttle(self, serial: str, spec: DiskSpec) -> None:
        """Set the speed of a disk from now on. Raises: InfrastructureError."""
        self._monitor.execute(
            "qom-set", path=f"/objects/{_limit(serial)}", property="limits", value=_limits(spec)
        )
        self._plugs[serial] = replace(self._plugs[serial], spec=spec)

    def make_bases(self) -> tuple[Plug, ...]:
        """Make for each disk an empty image on top of its file. Raises: InfrastructureError."""
        return tuple(self._make_base(plug) for plug in self._plugs.values())

    def _make_base(self, plug: Plug) -> Plug:
        if plug.below is not None:
            raise UsageError("a machine that was forked from a checkpoint cannot be saved as another")
        base = self._folder / f"{plug.serial}.qcow2"
        saved = replace(plug, base=base, below=plug.image(self._folder))
        self._make_image(saved, base)
        return saved

    def _make_image(self, plug: Plug, path: Path) -> None:
        """Make an empty qcow2 file on top of what is below a disk."""
        path.touch()
        node = f"base-{plug.serial}"
        options = {
            "driver": "qcow2",
            "file": node,
            "size": plug.spec.size,
            "backing-file": str(plug.below),
            "backing-fmt": "raw",
        }
        self._monitor.execute("blockdev-add", driver="file", filename=str(path), node_name=node)
        self._monitor.execute("blockdev-create", job_id=node, options=options)
        self._monitor.finish_job(node)
        self._monitor.execute("blockdev-del", node_name=node)


def _limits(spec: DiskSpec) -> dict[str, int]:
    # Zero means no limit, and is said, because setting limits keeps those it does not name.
    return {"bps-write": spec.write_bps, "bps-read": spec.read_bps, "iops-total": spec.iops}


def _limit(serial: str) -> str:
    return f"limit-{serial}"


def _node(driver: str, mode: dict[str, bool], **options: Any) -> dict[str, Any]:
    return {"driver": driver, "cache": mode, "discard": "unmap", **options}


def _file_node(path: Path) -> dict[str, Any]:
    return _node("file", CACHE_MODE, filename=str(path))


def _make_sparse(file: BinaryIO, size: int) -> None:
    try:
        file.truncate(size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise UsageError(
            f"a disk of {format_size(size)} is larger than a file may be in the cache's file system; "
            "make it smaller, or use dm_factory.zero with a snapshot on it"
        ) from None
