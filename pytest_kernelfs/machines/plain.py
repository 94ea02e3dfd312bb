"""Bases for providers and machines that can do less than all: the rest says that it is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from pytest_kernelfs.errors import Unsupported
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.machine import MOUNTS, DiskSpec, Exchange, Machine, MachineSpec, Saved


def lacks(provider: str, what: str) -> NoReturn:
    """Raises: Unsupported, which skips the test."""
    raise Unsupported(
        f"the provider {provider} cannot {what}; the provider qemu can (--kernelfs-provider qemu)"
    )


class PlainMachine:
    """A base for machines; ``call``, ``call_source``, ``alive``, ``check_alive``, ``destroy`` are missing."""

    provider_name: str
    """The provider's name, for messages."""
    mounts: str = MOUNTS

    def exchange(self, function: Callable[..., Any], *args: Any) -> Exchange:  # noqa: ARG002
        lacks(self.provider_name, "attach a terminal or streams to a command in its machines")

    def attach_disk(self, spec: DiskSpec) -> str:  # noqa: ARG002
        lacks(self.provider_name, "attach disks to its machines")

    def detach_disk(self, serial: str) -> None:
        raise AssertionError(f"no disk was attached, so there is none to detach: {serial}")

    def throttle_disk(self, serial: str, spec: DiskSpec) -> None:  # noqa: ARG002
        lacks(self.provider_name, "change the speed of disks")

    def save(self) -> Saved:
        lacks(self.provider_name, "save machines")

    def sysrq(self, keys: str, timeout: float) -> str:  # noqa: ARG002
        lacks(self.provider_name, "press sysrq keys")

    def console(self) -> str:
        """Nothing: there is no serial console to read."""
        return ""


class PlainProvider:
    """A base for providers; ``name``, ``describe`` and ``start`` are missing.

    Its machines boot the kernel asked for, are shared by all tests of a session, and cannot be saved.
    """

    name: str
    isolation: str = "session"

    def own_kernel(self) -> Kernel | None:
        return None

    def userland(self) -> str | None:
        return None

    def prove(self, kernel: Kernel) -> None:
        """Nothing is to be settled."""

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> Machine | None:  # noqa: ARG002
        return None

    def start_writable(self, kernel: Kernel, spec: MachineSpec) -> Machine:  # noqa: ARG002
        lacks(self.name, "save machines, so there is no fixture 'prepare'")

    def fork(self, saved: Saved) -> Machine:
        raise AssertionError(f"nothing was saved: {saved}")

    def fork_if_room(self, saved: Saved) -> Machine | None:
        raise AssertionError(f"nothing was saved: {saved}")

    def power_cut(
        self,
        machine: Machine,  # noqa: ARG002
        keep: str,  # noqa: ARG002
        kernel: Kernel,  # noqa: ARG002
        ready: Callable[[], None],  # noqa: ARG002
    ) -> Machine:
        lacks(self.name, "cut the power of its machines")

    def collect(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing is held."""
