"""Removes what runs that were killed left on a hypervisor."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pytest_kernelfs.machines.libvirt.api import explained, library, parse, words
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.machines.libvirt.domain import NAMESPACE
from pytest_kernelfs.machines.libvirt.ending import destroy
from pytest_kernelfs.machines.libvirt.owner import Owner
from pytest_kernelfs.machines.libvirt.storage import PREFIX, remove_pool


def collect(connection: Connection, given_up: Collection[str] = ()) -> list[str]:
    """End the domains and remove the pools of owners that are gone; gives a line for each.

    ``given_up`` are tokens of owners who say so themselves.

    Raises: InfrastructureError if libvirt cannot tell what is there.
    """
    handle = connection.handle
    with explained("list its domains and storage pools", uri=connection.uri):
        domains = [(domain, domain.name(), _owner_of(domain)) for domain in handle.listAllDomains()]
        pools = [(pool, pool.name()) for pool in handle.listAllStoragePools()]
    removed = []
    for domain, name, token in domains:
        if token in given_up or _is_abandoned(token, connection):
            removed.append(_told(f"ended the domain {name}", destroy, domain))
    for pool, name in pools:
        token = name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""
        if token in given_up or _is_abandoned(token, connection):
            removed.append(_told(f"removed the storage pool {name}", remove_pool, pool))
    return [f"{line} at {connection.uri}" for line in removed]


def collect_at(uri: str) -> list[str]:
    """The same for a hypervisor that is not connected to yet. Raises besides: ProviderUnavailable."""
    connection = Connection(uri)
    try:
        return collect(connection)
    finally:
        connection.close()


def _told(done: str, remove: Any, item: Any) -> str:
    try:
        remove(item)
    except library().libvirtError as error:
        return f"could not have {done}: {words(error)}"
    return done


def _is_abandoned(token: str, connection: Connection) -> bool:
    owner = Owner.parse(token)
    return owner is not None and owner.is_gone(local=connection.local)


def _owner_of(domain: Any) -> str:
    """The owner's token in a domain's metadata; "" if it is none of ours."""
    libvirt = library()
    try:
        return parse(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)).get("token", "")
    except libvirt.libvirtError:
        return ""
