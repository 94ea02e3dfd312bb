"""Disks of a running domain: files of the pool, attached and detached live."""

from __future__ import annotations

import itertools
import string
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.machines.libvirt.api import explained, library
from pytest_kernelfs.machines.libvirt.domain import DISK_PORTS, Plug, disk_targets, disk_xml, io_limits
from pytest_kernelfs.machines.libvirt.storage import Storage
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.plain import lacks

_DETACH_S = 20.0
_POLL_S = 0.01


@final
class DiskBay:
    """The disks of one domain; ``plugs`` are those it came up with."""

    def __init__(self, domain: Any, storage: Storage, plugs: Sequence[Plug] = ()) -> None:
        self._domain = domain
        self._storage = storage
        self._plugs = {plug.serial: plug for plug in plugs}
        self._numbers = itertools.count(len(plugs) + 1)

    @property
    def plugs(self) -> tuple[Plug, ...]:
        """The disks that are there now."""
        return tuple(self._plugs.values())

    def attach(self, spec: DiskSpec) -> str:
        """Attach a fresh sparse disk; gives its serial number.

        Raises: UsageError if all places are taken; Unsupported; InfrastructureError.
        """
        if spec.power_cut:
            lacks("libvirt", "keep a record of what a disk has flushed (disk_factory(power_cut=True))")
        if len(self._plugs) >= DISK_PORTS:
            raise UsageError(
                f"a machine holds {DISK_PORTS} disks and all are in use; put several file systems on one disk"
            )
        serial = next(name for number in self._numbers if (name := f"kfs{number}") not in self._plugs)
        path = self._storage.make_disk("disk", spec.size)
        try:
            self._plug_in(Plug(serial, "", path, spec))
        except BaseException:
            self._storage.remove(path)
            raise
        return serial

    def adopt(self, plug: Plug) -> None:
        """Attach a disk of a machine that ended, under its number. Raises: InfrastructureError."""
        self._plug_in(plug)

    def _plug_in(self, plug: Plug) -> None:
        with self._explained("attach a disk"):
            taken = disk_targets(self._domain.XMLDesc())
            target = next(name for letter in string.ascii_lowercase if (name := f"vd{letter}") not in taken)
            placed = replace(plug, target=target)
            self._domain.attachDeviceFlags(disk_xml(placed), library().VIR_DOMAIN_AFFECT_LIVE)
        self._plugs[plug.serial] = placed

    def detach(self, serial: str) -> None:
        """Detach a disk, wait until the guest has let go of it, and remove its file.

        Raises: InfrastructureError if the guest does not let go.
        """
        plug = self._plug(serial)
        deadline = time.monotonic() + _DETACH_S
        with self._explained("detach a disk"):
            # libvirt does not wait long for the guest.
            self._domain.detachDeviceFlags(disk_xml(plug), library().VIR_DOMAIN_AFFECT_LIVE)
            while plug.target in disk_targets(self._domain.XMLDesc()):
                if time.monotonic() > deadline:
                    raise InfrastructureError(
                        f"the guest did not let go of the disk {serial} within {_DETACH_S:g} s"
                    )
                time.sleep(_POLL_S)
        del self._plugs[serial]
        self._storage.remove(plug.path)

    def throttle(self, serial: str, spec: DiskSpec) -> None:
        """Set the speed of a disk from now on. Raises: InfrastructureError."""
        plug = self._plug(serial)
        with self._explained("change the speed of a disk"):
            self._domain.setBlockIoTune(plug.target, io_limits(spec), library().VIR_DOMAIN_AFFECT_LIVE)
        self._plugs[serial] = replace(plug, spec=spec)

    def _plug(self, serial: str) -> Plug:
        if serial not in self._plugs:
            raise InfrastructureError(f"there is no disk {serial}")
        return self._plugs[serial]

    def _explained(self, what: str) -> Any:
        return explained(what, uri=self._storage.connection.uri)
