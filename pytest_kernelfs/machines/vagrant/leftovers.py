"""Removes from a hypervisor what Vagrant made for a machine and had not noted yet when it was killed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.libvirt.api import explained, is_gone, library, words
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.machines.libvirt.ending import destroy

# As ``places.Place.name`` has it, and what Vagrant appends to that.
_OURS = re.compile(r"kernelfs-(\d+-\d+-[0-9a-f]+-\w+)-")


def collect_at(uri: str) -> list[str]:
    """End and remove the domains, and remove the volumes, of owners that are gone; gives a line for each.

    Nothing where the hypervisor is another host: names tell of processes of the one that Vagrant ran on.

    Raises: ProviderUnavailable, InfrastructureError if libvirt cannot tell what is there.
    """
    connection = Connection(uri)
    try:
        return collect(connection) if connection.local else []
    finally:
        connection.close()


def collect(connection: Connection) -> list[str]:
    """The same for an open connection to the libvirt of this host."""
    handle = connection.handle
    with explained("list its domains and volumes", uri=connection.uri):
        domains = [each for each in handle.listAllDomains() if _is_abandoned(each.name())]
        pools = [pool for pool in handle.listAllStoragePools() if pool.isActive()]
        volumes = [each for pool in pools for each in pool.listAllVolumes() if _is_abandoned(each.name())]
    removed = [_told(f"ended the domain {each.name()}", _remove_domain, each) for each in domains]
    removed += [_told(f"removed the volume {each.name()}", _remove_volume, each) for each in volumes]
    return [f"{line} at {connection.uri}" for line in removed]


def _is_abandoned(name: str) -> bool:
    match = _OURS.match(name)
    return match is not None and lease.owner_is_gone(Path(match[1]))


def _told(done: str, remove: Callable[[Any], None], item: Any) -> str:
    try:
        remove(item)
    except library().libvirtError as error:
        return f"could not have {done}: {words(error)}"
    return done


def _remove_domain(domain: Any) -> None:
    libvirt = library()
    destroy(domain)
    flags = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    try:
        domain.undefineFlags(flags)
    except libvirt.libvirtError as error:
        if not is_gone(error):
            raise


def _remove_volume(volume: Any) -> None:
    try:
        volume.delete()
    except library().libvirtError as error:
        if not is_gone(error):
            raise
