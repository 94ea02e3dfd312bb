"""Ends domains, also where libvirt does not answer any more."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.libvirt.api import is_gone, library, words
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.news import tell


def end_domain(connection: Connection, uuid: str) -> None:
    """End a domain; one that is gone is no error. If it cannot be ended, that is news."""
    problem = _destroy(connection, uuid)
    if not connection.alive:
        problem = _destroy_anew(connection.uri, uuid) or ""
        if problem and connection.local and _kill(uuid):
            problem = ""
    if problem:
        tell(
            f"the domain {uuid} at {connection.uri} may still run: {problem}; "
            f"once libvirt answers, a later run or 'kernelfs gc --libvirt-uri {connection.uri}' ends it"
        )


def _destroy(connection: Connection, uuid: str) -> str:
    """What went wrong, or ""."""
    libvirt = library()
    if not connection.alive:
        return "the connection broke"
    try:
        destroy(connection.handle.lookupByUUIDString(uuid))
    except libvirt.libvirtError as error:
        return "" if is_gone(error) else words(error)
    return ""


def _destroy_anew(uri: str, uuid: str) -> str:
    """Try it over another connection: many daemons are started anew by whoever asks for them."""
    try:
        another = Connection(uri)
    except ProviderUnavailable as error:
        return str(error)
    try:
        return _destroy(another, uuid)
    finally:
        another.close()


def destroy(domain: Any) -> None:
    """End a domain at once; one that has ended meanwhile is no error. Raises: libvirtError."""
    try:
        domain.destroy()
    except library().libvirtError as error:
        ended = (library().VIR_ERR_OPERATION_INVALID, library().VIR_ERR_NO_DOMAIN)
        if error.get_error_code() not in ended:
            raise


def _kill(uuid: str) -> bool:
    """End the QEMU of a domain of this host without libvirt; False if there is none that we may end."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
            if uuid.encode() in arguments and b"qemu" in arguments[0]:
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
        except OSError:
            continue
    return False
