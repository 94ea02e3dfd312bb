"""One machine of Vagrant's: made, reached over ssh, put back to how it started, destroyed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError, KernelfsError, ProviderUnavailable
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.admission import Slot
from pytest_kernelfs.machines.ssh.transport import SshTransport
from pytest_kernelfs.machines.vagrant import direct, package
from pytest_kernelfs.machines.vagrant.commands import address_of, host_of, with_paths_as_they_are
from pytest_kernelfs.machines.vagrant.places import Place
from pytest_kernelfs.machines.verdict import panic_text, tail
from pytest_kernelfs.news import tell

_SNAPSHOT = "kernelfs"
# A machine whose state was loaded is there at once, but its network needs some seconds to see it.
_AFTER_RESTORE_S = 120.0
# Where the port is open already, what takes time is a host that has much else to do.
_SSH_TRY_S = 15.0
_POLL_S = 0.2
_ASK_S = 30.0
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@final
class Instance:
    """A machine in ``place``, with ``kernel``; ``slot`` is given back with its end."""

    def __init__(self, place: Place, kernel: Kernel, hypervisor: str, slot: Slot) -> None:
        self.place = place
        self.kernel = kernel
        self._hypervisor = hypervisor
        self._slot = slot
        self._commands = place.commands
        self._transport: SshTransport | None = None
        self._address: tuple[str, int] | None = None
        self.host_name = ""
        self._can_be_restored = False
        self.was_restored = False
        self.keeps_console = False
        """Whether its serial console is written to a file; known once it is up."""

    def up(self, lock: Path, timeout: float) -> None:
        """Make it, wait until ssh answers, and see that it runs the kernel.

        ``lock`` is a file: one process at a time has Vagrant make a machine.

        Raises: InfrastructureError, ProviderUnavailable, with what Vagrant and the console printed.
        """
        with _turn(lock, timeout):
            self._telling_the_console(lambda: self._commands.up(self._hypervisor, timeout, self._hopeless))
        self.keeps_console = bool(self.console())
        self._find()
        if self._ask_kernel() != self.kernel.release:
            self._install_kernel(timeout)
        self._save()

    def _find(self) -> None:
        """Learn how ssh reaches it."""
        config = self._commands.ssh_config()
        file = self.place.private / "ssh_config"
        file.write_text(with_paths_as_they_are(config))
        host = host_of(config)
        assert host is not None
        self._address = address_of(config)
        self._transport = SshTransport(host, config_file=file, strict=False, connect_timeout=_SSH_TRY_S)

    @property
    def transport(self) -> SshTransport:
        """The way to it. Raises: InfrastructureError if it is not up."""
        if self._transport is None:
            raise InfrastructureError(f"the machine {self.place.name} is not up")
        return self._transport

    def connect(self, timeout: float = _AFTER_RESTORE_S) -> SshTransport:
        """The way to it, as soon as ssh answers. Raises: InfrastructureError."""
        deadline = time.monotonic() + timeout
        while True:
            self._wait_for_port(deadline)
            try:
                self.transport.open()
            except ProviderUnavailable as error:
                if (why := self._hopeless()) is not None:
                    raise InfrastructureError(why) from None
                if time.monotonic() > deadline:
                    raise InfrastructureError(f"after {timeout:g} s: {error}") from None
                time.sleep(_POLL_S)
            else:
                return self.transport

    def _wait_for_port(self, deadline: float) -> None:
        """Return when something listens there, or the time is up.

        ssh would wait for seconds after a packet that got lost: a network takes no notice of a machine that
        has just been put into it.
        """
        while self._address is not None and not self.transport.is_open and time.monotonic() < deadline:
            try:
                socket.create_connection(self._address, timeout=_POLL_S).close()
            except OSError:
                if self._hopeless() is not None:
                    return
                time.sleep(_POLL_S / 4)
            else:
                return

    def _ask_kernel(self) -> str:
        """The release of the kernel that runs there; the machine's host name is learned besides."""
        answer = self.connect().run(["uname", "-nr"], timeout=_ASK_S).stdout.split()
        if len(answer) != 2:
            raise InfrastructureError(f"{self.place.name} does not say what kernel it runs, but: {answer}")
        self.host_name, release = answer
        return release

    def boot_id(self, within: float) -> str:
        """What names the boot of the system that runs there now; "" if ssh does not answer in time."""
        try:
            return self.connect(within).run(["cat", BOOT_ID], timeout=_ASK_S).stdout.strip()
        except KernelfsError:
            return ""

    def _install_kernel(self, timeout: float) -> None:
        """Have it run our kernel, by its own boot loader. Raises: InfrastructureError if it does not."""
        package.install(self.transport, self.kernel, self.place.private)
        self.transport.close()
        self._telling_the_console(lambda: self._commands.reload(timeout, self._hopeless))
        self._find()
        release = self._ask_kernel()
        if release != self.kernel.release:
            raise InfrastructureError(
                f"the machine {self.place.name} was given the kernel {self.kernel.release} and rebooted, but "
                f"it runs {release}: its boot loader does not start what GRUB_DEFAULT names"
            )

    def _save(self) -> None:
        """Save it, if Vagrant can: other tests may start from here."""
        # What is connected when it is saved hangs when it is restored.
        self.transport.close()
        try:
            self._commands.save_snapshot(_SNAPSHOT)
        except KernelfsError as error:
            tell(f"this machine cannot be saved, so that a fresh one takes as long as the first: {error}")
        else:
            self._can_be_restored = True

    def restore(self) -> bool:
        """Put it back to how it was when it was up; False if that cannot be done."""
        if self._transport is not None:
            self._transport.close()
        if not self._can_be_restored:
            return False
        try:
            self.place.console.write_text("")
            self._commands.restore_snapshot(_SNAPSHOT)
            self.connect()
            self.was_restored = True
        except (KernelfsError, OSError) as error:
            tell(f"a machine could not be put back to how it started, and another is made: {error}")
            return False
        return True

    def console(self) -> str:
        """What its serial console has printed; nothing where it is not kept."""
        try:
            text = self.place.console.read_text(errors="replace")
        except OSError:
            return ""
        # A machine that was put back goes on writing where it was, behind a hole.
        return text.replace("\0", "").replace("\r", "")

    def state(self) -> str:
        """What Vagrant says of it: running, shutoff …"""
        try:
            return self._commands.state()
        except KernelfsError as error:
            return f"unknown ({error})"

    def _hopeless(self) -> str | None:
        """Why there is no use to wait for it longer, as far as its console tells."""
        console = self.console()
        kernel = f"kernel {self.kernel.release} ({self.kernel.source})"
        if (panic := panic_text(console)) is not None:
            return f"{kernel} panicked while it booted:\n{panic}"
        if direct.FAILED in console:
            return f"{kernel} booted, but the box's system cannot be started:\n{tail(console, 5)}"
        return None

    def _telling_the_console(self, act: Callable[[], None]) -> None:
        try:
            act()
        except InfrastructureError as error:
            console = self.console()
            if self._hopeless() is not None or not console.strip():
                raise
            raise InfrastructureError(f"{error}\nThe console's last lines:\n{tail(console)}") from None

    def destroy(self) -> None:
        """End it and remove all it left; what could not be removed is news. May be called again."""
        if self._transport is not None:
            self._transport.close()
        try:
            self.place.destroy()
        except KernelfsError as error:
            tell(f"the machine {self.place.name} could not be destroyed ('kernelfs gc' tries again): {error}")
        self._slot.release()


@contextmanager
def _turn(lock: Path, patience: float) -> Iterator[None]:
    """Hold the lock, for which others may have to be waited. Raises: InfrastructureError."""
    import filelock

    with explain_os_errors("write", lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(lock, timeout=patience):
            yield
    except filelock.Timeout:
        raise InfrastructureError(
            f"other runs kept Vagrant busy for {patience:g} s; run fewer at once (-n), or give it more time "
            "with --kernelfs-boot-timeout SECONDS"
        ) from None
