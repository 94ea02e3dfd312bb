"""libvirt-python: imported when it is needed, its events served by a thread, its errors put in our words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable
from pytest_kernelfs.machines.threads import start

_MISSING = (
    "the provider libvirt needs libvirt-python, which cannot be imported ({error}); get it with: "
    "pip install 'pytest-kernelfs[libvirt]' (it is compiled, for which Debian's libvirt-dev, gcc and "
    "pkg-config have to be there)"
)
# What libvirt says of files, in words that strerror(3) gives, and what to do about it.
_ADVICE = {
    "No space left on device": "make room in the storage of that hypervisor",
    "Disk quota exceeded": "make room in the storage of that hypervisor",
    "Permission denied": "the user that the hypervisor runs machines as has to be allowed that",
    "Cannot allocate memory": "give machines less --kernelfs-memory, or run fewer workers (-n)",
}


@cache
def library() -> Any:
    """The module ``libvirt``. Raises: ProviderUnavailable if it is not installed."""
    try:
        import libvirt
    except ImportError as error:
        raise ProviderUnavailable(_MISSING.format(error=error)) from None
    # Every error would be printed otherwise, too.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    start(threading.Thread(target=_serve_events, name="kernelfs-libvirt", daemon=True))
    return libvirt


def _serve_events() -> None:
    libvirt = library()
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            continue  # whoever waits for an event has a deadline


@contextmanager
def explained(what: str, *, uri: str) -> Iterator[None]:
    """Say what could not be done at ``uri``, in libvirt's own words. Raises: InfrastructureError."""
    libvirt = library()
    try:
        yield
    except libvirt.libvirtError as error:
        said = words(error)
        advice = next((f"; {text}" for key, text in _ADVICE.items() if key in said), "")
        raise InfrastructureError(f"libvirt at {uri} cannot {what}: {said}{advice}") from None


def words(error: Any) -> str:
    """What an error of libvirt says, as one line."""
    return " ".join((error.get_error_message() or "it gives no reason").split())


def parse(xml: str) -> ET.Element:
    """A description that libvirt gave."""
    return ET.fromstring(xml)  # noqa: S314  (libvirt made it)


def is_gone(error: Any) -> bool:
    """Whether an error says that what was asked for does not exist."""
    libvirt = library()
    missing = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL)
    return error.get_error_code() in missing
