"""pytest-testinfra on our channel: its modules ask the guest through ``VM.run``, whoever provides it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from pytest_kernelfs.machines.vm import DEFAULT_TIMEOUT_S, VM

# Without sudo, root becomes somebody by itself. What sudo sets is set; PATH keeps its sbin, as with sudo.
_AS_USER = (
    'setpriv --reuid=%s --regid="$(id -g -- %s)" --init-groups --reset-env env PATH="$PATH" /bin/sh -c %s'
)


def host_of(vm: VM) -> Host:
    """A new testinfra Host, which keeps what it found out about the machine."""
    backend = GuestBackend(vm)
    host = Host(backend)
    backend.set_host(host)
    return host


@final
class GuestBackend(BaseBackend):
    """Runs testinfra's commands in the guest, as root, through its shell."""

    NAME = "kernelfs"

    def __init__(self, vm: VM) -> None:
        super().__init__(str(vm.kernel.version))
        self._vm = vm

    def run(self, command: str, *args: str, timeout: float = DEFAULT_TIMEOUT_S, **_: Any) -> CommandResult:
        """Run a command, its ``args`` quoted for the shell.

        Raises: GuestTimeout after ``timeout`` seconds; KernelPanic and its like if the machine died.
        """
        line = self.get_command(command, *args)
        done = self._vm.run(line, timeout=timeout)
        return self.result(done.rc, self.encode(line), done.stdout_bytes, done.stderr_bytes)

    def get_encoding(self) -> str:
        """That of ``VM.run``: to ask the guest's Python costs more than most answers."""
        return "UTF-8"

    def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
        if self._may_sudo:
            return super().get_sudo_command(command, sudo_user)
        user = sudo_user or "root"
        return self.quote(_AS_USER, user, user, command)

    @cached_property
    def _may_sudo(self) -> bool:
        """Whether sudo is there and told to let root use it, as it is on most systems."""
        return self._vm.run("sudo -n true").succeeded
