"""What a machine is, to everything above it: the protocol each provider's machines follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pytest_kernelfs.kernels.kernel import Kernel

MOUNTS = "/mnt"
"""Where file systems are mounted in a machine whose folders are all ours."""


@dataclass(frozen=True)
class MachineSpec:
    """The size of a machine: ``memory`` in bytes, number of ``cpus``; what its kernel is told besides."""

    memory: int
    cpus: int
    boot_parameters: str = ""


@dataclass(frozen=True)
class DiskSpec:
    """A disk to attach: ``size`` in bytes; speeds in bytes or operations per second, 0 for no limit.

    ``cache`` is "writeback" for a disk that announces a volatile write cache, "writethrough" for one
    without; ``sector_size`` is in bytes; ``power_cut`` has it keep the record that a power cut is made from.
    """

    size: int
    write_bps: int = 0
    read_bps: int = 0
    iops: int = 0
    cache: str = "writeback"
    sector_size: int = 512
    power_cut: bool = False


class Machine(Protocol):
    """A running machine.

    Every method raises KernelPanic or KernelMisbehaved if the machine died,
    GuestTimeout if it did not answer in time, InfrastructureError if we failed,
    Unsupported for what machines of this provider cannot do.
    """

    kernel: Kernel
    log_start: int
    """The number of the first record in the kernel's log that is this machine's own."""
    mounts: str
    """The folder in it below which file systems are mounted."""
    spoiled: bool
    """True if no other test is to have it: sysrq keys were cut off, so that the kernel may go on printing all
    it logs on its console, or it keeps a cgroup hierarchy that was unmounted."""

    @property
    def alive(self) -> bool:
        """False once the machine is known to be gone or beyond use."""

    def check_alive(self) -> None:
        """Raise what ended the machine, if it has ended and nobody was told yet."""

    def call(self, function: Callable[..., Any], *args: Any, timeout: float, **kwargs: Any) -> Any:
        """Run a function of ``pytest_kernelfs.guest`` inside, and give its value.

        Raises besides: GuestCommandError if the function raised.
        """

    def call_source(self, source: str, name: str, *args: Any, timeout: float) -> Any:
        """Run the function ``name`` of the module text ``source`` inside, and give its value."""

    def exchange(self, function: Callable[..., Any], *args: Any) -> Exchange:
        """Begin a call of a function of ``pytest_kernelfs.guest`` in which items go both ways.

        Its first argument there is the other end of the exchange, ``guest.exchange.Exchange``.
        """

    def attach_disk(self, spec: DiskSpec) -> str:
        """Attach a fresh, empty disk; gives its serial number, under which the guest finds it."""

    def detach_disk(self, serial: str) -> None:
        """Detach a disk and forget its content."""

    def throttle_disk(self, serial: str, spec: DiskSpec) -> None:
        """Set the speed of a disk from now on to that of ``spec``."""

    def save(self) -> Saved:
        """Save the machine with its disks, for forks to start from; it ends with that.

        Raises besides: UsageError if it was not started with ``start_writable``.
        """

    def sysrq(self, keys: str, timeout: float) -> str:
        """Press magic SysRq keys from outside, and give what the kernel printed: works where calls do not.

        Raises besides: GuestTimeout if the kernel takes no key.
        """

    def console(self) -> str:
        """All that the serial console has printed."""

    def destroy(self) -> None:
        """End the machine at once and remove all it left; may be called again."""


class Exchange(Protocol):
    """A call under way, from the host's side; see ``channel.GuestExchange``, which does for every channel."""

    def fileno(self) -> int:
        """Readable when there is something to take."""

    def send(self, item: Any) -> None:
        """Give the function an item."""

    def take(self) -> list[Any]:
        """The items that it has sent since, without waiting for more."""

    @property
    def finished(self) -> bool:
        """Whether it has ended, or the machine has, and all that was sent is taken."""

    @property
    def value(self) -> Any:
        """What it gave, once it has ended. Raises: GuestCommandError if it raised; what ended the machine."""

    def close(self) -> None:
        """Take no more; the function is told."""


class Saved(Protocol):
    """A machine that was saved; equal only to itself."""

    def discard(self) -> None:
        """Remove it; forks of it go on."""

    def __hash__(self) -> int: ...


class Provider(Protocol):
    """Turns a kernel into a running machine.

    ``plain.PlainProvider`` is a base for those that can do less than all of this.
    """

    name: str
    isolation: str
    """Which tests share a machine unless the user says: "test" where a fresh one is cheap, else "session"."""

    def describe(self) -> str:
        """For the report's header: the provider, its version, what decides its speed and why.

        Raises: ProviderUnavailable if it cannot work here.
        """

    def own_kernel(self) -> Kernel | None:
        """The kernel that its machines run, whatever is asked for; None if they boot the one asked for.

        Raises: ProviderUnavailable, InfrastructureError if that cannot be found out.
        """

    def userland(self) -> str | None:
        """Names the programs that its machines have, for what is remembered of them from run to run.

        "" for those of this host, lifted into our own root; None for those that may change at any time.
        """

    def prove(self, kernel: Kernel) -> None:
        """Settle what can be settled before the tests wait for it; called once for each kernel.

        Raises: ProviderUnavailable if it turns out that no machine can run.
        """

    def start(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        """Start a machine and wait until it answers.

        Raises: InfrastructureError (with the tail of the console), ProviderUnavailable.
        """

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> Machine | None:
        """The same, or None if it would take long or there is no room now; called in other threads."""

    def start_writable(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        """Start a machine that can be saved. Raises: as ``start``, UsageError if this provider cannot."""

    def fork(self, saved: Saved) -> Machine:
        """A machine that goes on from a saved one. Raises: InfrastructureError."""

    def fork_if_room(self, saved: Saved) -> Machine | None:
        """The same, or None if there is no room now; called in other threads."""

    def power_cut(self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]) -> Machine:
        """Cut the power of a machine; gives another of its size that started with ``kernel``.

        That has the same disks, by serial number. They hold what had been flushed to them, if ``keep`` is
        "flushed", or all that had been written to them, if it is "written". ``ready`` is called when all is
        checked, while the machine still answers.

        Raises: UsageError, with the machine still running, if a disk has no record of what was flushed;
        as ``start``.
        """

    def collect(self) -> list[str]:
        """Remove what runs that were killed left behind; gives a line for each."""

    def close(self) -> None:
        """The run is over, and all machines are destroyed: give back what was held for them."""


@dataclass(frozen=True)
class Settings:
    """What providers need of the configuration: ``boot_timeout`` in seconds, ``accel`` auto, kvm or tcg.

    ``max_vms`` machines may live at once on this host, None for as many as fit; what machines are made of
    may fill ``cache_size`` bytes of the cache. ``image`` is a disk image whose system is to be booted
    instead of our own root in memory; ``image_partition`` says where on it the root is, as
    ``guest.root_disk.find`` takes it, "" for where it seems to be. ``run`` is a name that all workers of a
    run of pytest-xdist have in common, "" where there are none.
    """

    cache_root: Path
    boot_timeout: float = 120.0
    accel: str = "auto"
    max_vms: int | None = None
    cache_size: int = 10 << 30
    image: Path | None = None
    image_partition: str = ""
    run: str = ""


MakeProvider = Callable[[Settings], Provider]
