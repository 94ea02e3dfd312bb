"""A connection to a hypervisor: opened within a deadline, watched, and asked for the end of machines."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, final
from urllib.parse import urlsplit

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.libvirt.api import library, words
from pytest_kernelfs.machines.threads import start

_OPEN_S = 30.0
# A hypervisor that answers nothing for so many seconds, asked so many times, is taken to be gone.
_KEEP_ALIVE_S = 5
_KEEP_ALIVE_COUNT = 4


@final
class Connection:
    """An open connection to the libvirt at ``uri``."""

    def __init__(self, uri: str) -> None:
        """Raises: ProviderUnavailable."""
        self.uri = uri
        self.handle = _open(uri)
        self.lost = threading.Event()
        """Set once the connection has broken."""
        self._watched: dict[str, Callable[[int], None]] = {}
        try:
            self._watch()
        except BaseException:
            self.close()
            raise

    def _watch(self) -> None:
        libvirt = library()
        if self.handle.getType() != "QEMU":
            raise ProviderUnavailable(
                f"--kernelfs-libvirt-uri: {self.uri} leads to {self.handle.getType()}; only QEMU can boot a "
                "kernel that it is given, such as qemu:///session or qemu+ssh://user@host/system"
            )
        try:
            self.handle.registerCloseCallback(self._on_close, None)
            self.handle.setKeepAlive(_KEEP_ALIVE_S, _KEEP_ALIVE_COUNT)
            self.handle.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None
            )
        except libvirt.libvirtError as error:
            raise ProviderUnavailable(f"libvirt at {self.uri} cannot be used: {words(error)}") from None

    def _on_close(self, _handle: Any, _reason: int, _opaque: Any) -> None:
        self.lost.set()
        for told in list(self._watched.values()):
            told(-1)

    def _on_lifecycle(self, _handle: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        told = self._watched.get(domain.UUIDString())
        if told is not None and event == library().VIR_DOMAIN_EVENT_STOPPED:
            told(detail)

    def watch(self, uuid: str, told: Callable[[int], None]) -> None:
        """Have ``told`` called when that domain stops, with libvirt's reason; -1 for a broken connection."""
        self._watched[uuid] = told

    def forget(self, uuid: str) -> None:
        """Watch a domain no longer."""
        self._watched.pop(uuid, None)

    @property
    def alive(self) -> bool:
        return not self.lost.is_set()

    @property
    def local(self) -> bool:
        """Whether the hypervisor is this very host."""
        return is_local(self.uri)

    @property
    def reads_our_files(self) -> bool:
        """Whether machines are run by ourselves: root's session is the system's hypervisor."""
        return self.local and urlsplit(self.uri).path == "/session" and os.geteuid() != 0

    @property
    def versions(self) -> str:
        """libvirt's and QEMU's, for people."""
        return f"libvirt {_dotted(self.handle.getLibVersion())} with QEMU {_dotted(self.handle.getVersion())}"

    def close(self) -> None:
        """Close it; what is broken already is no error."""
        self.lost.set()
        try:
            self.handle.close()
        except library().libvirtError:
            pass

    def broken(self) -> str:
        """What to say when it has broken."""
        return (
            f"the connection to libvirt at {self.uri} broke: its daemon ended, or the host cannot be reached "
            "any more; see to it that it runs, and run the test again"
        )


def is_local(uri: str) -> bool:
    """Whether a URI leads to this very host."""
    return not urlsplit(uri).hostname


def without_questions(uri: str) -> str:
    """The URI in a form that makes ssh fail where it would ask for a password: nobody is there to answer."""
    parts = urlsplit(uri)
    if not parts.scheme.endswith("+ssh") or "no_tty=" in parts.query:
        return uri
    return f"{uri}{'&' if parts.query else '?'}no_tty=1"


def _open(uri: str) -> Any:
    """Raises: ProviderUnavailable, also if it takes too long: libvirt itself knows no deadline."""
    libvirt = library()
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answers.put(libvirt.open(without_questions(uri)))
        except libvirt.libvirtError as error:
            answers.put(error)

    start(threading.Thread(target=connect, name="kernelfs-libvirt-open", daemon=True))
    try:
        answer = answers.get(timeout=_OPEN_S)
    except queue.Empty:
        raise ProviderUnavailable(
            f"libvirt at {uri} did not answer within {_OPEN_S:g} s; see whether 'virsh -c {uri} list' works"
        ) from None
    if isinstance(answer, libvirt.libvirtError):
        raise ProviderUnavailable(
            f"cannot connect to libvirt at {uri}: {words(answer)}; {_advice(uri, answer)}"
        )
    return answer


def _advice(uri: str, error: Any) -> str:
    libvirt = library()
    if error.get_error_code() in (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_UNAVAILABLE):
        return "be a member of the group libvirt there, or use qemu:///session"
    # There is no code of its own for one that libvirt cannot read.
    if any(name in words(error) for name in ("URI", "URL")):
        return (
            "write --kernelfs-libvirt-uri as qemu:///session, qemu:///system or qemu+ssh://user@host/system"
        )
    if not is_local(uri):
        return f"see whether 'virsh -c {without_questions(uri)} list' works"
    return "start its daemon (libvirtd or virtqemud), or name another with --kernelfs-libvirt-uri"


def _dotted(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
