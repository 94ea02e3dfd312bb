"""Whether KVM works at a hypervisor: a guest is run on it, as in ``machines.accelerator``."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.accelerator import DEADLINE_S, REACHED, Memory
from pytest_kernelfs.machines.libvirt.api import library, parse, words
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.machines.libvirt.ending import end_domain
from pytest_kernelfs.machines.libvirt.streams import ConsoleStream

_POLL_S = 0.01
_LONGEST = 80
_NO_KVM = "the hypervisor offers no KVM"


def remembered(connection: Connection, cache: Cache) -> str | None:
    """What was found earlier: "" for a working KVM, None if nobody looked yet."""
    if not _offers_kvm(connection):
        return _NO_KVM
    return _memory(connection, cache).recall() if connection.local else None


def problem_with_kvm(connection: Connection, cache: Cache, make: Callable[[str], str]) -> str:
    """ "" if a guest runs with KVM; ``make`` gives the description of one without a root, for a uuid.

    Raises: InfrastructureError if the connection broke meanwhile.
    """
    known = remembered(connection, cache)
    if known is None:
        known = _try(connection, make)
        if connection.local:
            # Of another host we do not hear when it is started anew.
            _memory(connection, cache).remember(known)
    return known


def _offers_kvm(connection: Connection) -> bool:
    guests = parse(connection.handle.getCapabilities()).iterfind("guest/arch[@name='x86_64']/domain")
    return any(domain.get("type") == "kvm" for domain in guests)


def _memory(connection: Connection, cache: Cache) -> Memory:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    session = connection.reads_our_files
    identity = {"boot": boot, "uri": connection.uri, "versions": connection.versions}
    return Memory(cache, f"libvirt-{'session' if session else 'system'}", identity)


def _try(connection: Connection, make: Callable[[str], str]) -> str:
    libvirt = library()
    ended = threading.Event()
    name = str(uuid.uuid4())
    connection.watch(name, lambda _reason: ended.set())
    try:
        domain = connection.handle.createXML(make(name), libvirt.VIR_DOMAIN_START_PAUSED)
        stream = connection.handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        console = ConsoleStream(stream)
        domain.resume()
        reached = _reaches(console, ended)
    except libvirt.libvirtError as error:
        return f"KVM is offered, but a guest on it fails: {brief(words(error))}"
    finally:
        connection.forget(name)
        end_domain(connection, name)
    if not connection.alive:
        raise InfrastructureError(connection.broken())
    if reached:
        return ""
    if ended.is_set():
        return "KVM is offered, but a guest on it stopped silently"
    return f"KVM is offered, but a guest on it did not boot within {DEADLINE_S:g} s"


def brief(text: str) -> str:
    """What QEMU complained of first, out of all that libvirt says."""
    match = re.search(r"qemu-system-\w+: (.*?)(?: qemu-system-\w+: |$)", text)
    said = match[1] if match else text
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."


def _reaches(console: ConsoleStream, ended: Any) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while REACHED not in console.printed:
        if ended.is_set():
            console.wait_end(1.0)
            return REACHED in console.printed
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
