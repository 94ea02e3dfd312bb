"""Kernels that need no network and machines that need no QEMU, for whole runs of pytest.

What happens is noted in a file, because some of it happens in the workers of xdist.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest_kernelfs.kernels
import pytest_kernelfs.machines.qemu.provider
import tests.fake_machine
from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, KernelNotFound, KernelPanic
from pytest_kernelfs.kernels import Candidate, Kernel, KernelSettings, KernelSpec, KernelVersion, Resolver
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.report import verdicts
from tests.fake_machine import FakeMachine, ran

VERSIONS = ("5.10.262", "6.1.176")
LOG = "KERNELFS_TEST_LOG"
# A version whose machines do not boot.
BROKEN = "KERNELFS_TEST_BROKEN"
# The config file that all kernels come with; without it they come without.
CONFIG = "KERNELFS_TEST_CONFIG"
FAKES = (Path(__file__), Path(tests.fake_machine.__file__))
ours = verdicts._is_ours


def note(event: str) -> None:
    with Path(os.environ[LOG]).open("a") as file:
        file.write(f"{event}\n")


def candidate(version: str) -> Candidate:
    checksum = version.replace(".", "").ljust(64, "0")
    return Candidate(version, KernelVersion.parse(version), f"{version}-fake", "fake", checksum)


class FakeSource:
    """Knows two kernels."""

    notes: tuple[str, ...] = ()

    def find(self, spec: KernelSpec) -> Candidate:
        for version in VERSIONS:
            if f"{version}.".startswith(f"{spec.value}."):
                return candidate(version)
        raise KernelNotFound(f"no kernel {spec.text} in Debian's suites; 'kernelfs kernels ls' lists them")


class FakeResolver(Resolver):
    """Reads specs as the real one does, and finds what the fake source knows."""

    _debian = FakeSource()  # type: ignore[assignment]

    def __init__(self, settings: KernelSettings) -> None:
        super().__init__(settings)
        told = {"flavour": settings.flavour, "mirror": settings.debian_mirror, "offline": settings.offline}
        note(f"settings {told}")

    def resolve(self, specs: Sequence[str]) -> list[Candidate]:
        note(f"resolve {','.join(specs)}")
        return super().resolve(specs)

    def default(self) -> Candidate:
        note("resolve the default")
        return candidate("6.1.176")

    def fetch(self, candidate: Candidate) -> Kernel:
        note(f"fetch {candidate.version}")
        version, release = candidate.version, candidate.release
        image, config = Path("/boot/vmlinuz"), Path(os.environ.get(CONFIG, ""))
        given = config if config.is_file() else None
        return Kernel(version, release, "fake", candidate.checksum, image, config=given)


class FakeProvider:
    """Starts machines that do what a command says by its name."""

    name = "qemu"
    isolation = "test"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def own_kernel(self) -> None:
        return None

    def userland(self) -> str:
        return ""

    def close(self) -> None:
        note("close")

    def describe(self) -> str:
        return "fake machines"

    def prove(self, kernel: Kernel) -> None:
        note(f"prove {kernel.version}")

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> None:
        return None

    def collect(self) -> list[str]:
        return []

    def start(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        note(f"start {kernel.version}")
        note(f"size {spec.memory >> 20}M {spec.cpus} {spec.boot_parameters}".rstrip())
        if str(kernel.version) == os.environ.get(BROKEN):
            raise InfrastructureError(f"kernel {kernel.release} did not answer within 120 s")
        return NotedMachine(kernel)

    def fork(self, saved: Kernel) -> FakeMachine:
        """What is saved of a machine is its kernel."""
        return NotedMachine(saved)


# What the guest says of a file system that it checked.
SOUND = {"rc": 0, "output": "", "replay": "", "skipped": "", "unable": ""}


class NotedMachine(FakeMachine):
    """A machine whose end is noted."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(
            str(kernel.version), run=self.behave, umount_timed=umount_timed, stuck=[], mark=1, check=SOUND
        )
        self.kernel = kernel
        self.answers["settle"] = self.settle

    def behave(self, command: str | list[str], *_: Any) -> dict[str, Any]:
        """``panic``, ``hang``, ``lost``, ``slow``, ``stuck`` and ``fail`` do as they are called."""
        if command == "panic":
            self.alive = False
            raise KernelPanic(
                f"kernel {self.kernel.release} panicked:\nKernel panic - not syncing: on request"
            )
        if command == "hang":
            raise GuestTimeout("the guest did not answer a call of run within 70 s")
        if command == "lost":
            self.alive = False
            raise InfrastructureError("QEMU ended during the test (exit code 1); run the test again")
        outcomes = {
            "slow": ran(None),
            "stuck": ran(None, stuck="pid 7 waits in x"),
            "fail": ran(1, "", "broke"),
        }
        return outcomes.get(str(command), ran(0, "mkfs.xfs version 6.1.0\n"))

    def settle(self, kind: str, value: str) -> tuple[str, str]:
        """Every need is met, but for some of overlay."""
        note(f"probe {self.kernel.version} {kind}:{value}")
        if value == "verity":
            self.behave("panic")
        if value == "userxattr" and self.kernel.version.major < 6:
            return "unmet", "does not know the overlay option userxattr"
        return ("unclear", "mounts nothing") if value == "uuid" else ("met", "")

    def destroy(self) -> None:
        note(f"destroy {self.kernel.version}")
        super().destroy()


def umount_timed(paths: list[str], backing: list[str], parallel: bool) -> dict[str, Any]:
    """The first takes a quarter of a second, each further one as much longer."""
    return {
        "seconds": [0.25 * (number + 1) for number in range(len(paths))],
        "errors": [""] * len(paths),
        "written": {},
        "watch": [(0.0, 0, 0), (0.1, 0, 0)],
        "holders": [[] for _ in paths],
        "waited": [{} for _ in paths],
    }


def install(replace: Callable[[Any, str, Any], None]) -> None:
    """Put all this in the place of the real things; ``replace`` is setattr or monkeypatch's."""
    replace(pytest_kernelfs.kernels, "Resolver", FakeResolver)
    replace(pytest_kernelfs.machines.qemu.provider, "QemuProvider", FakeProvider)
    replace(lease, "collect", list)
    # The frames of all this are shown as little as those of what it stands for.
    replace(verdicts, "_is_ours", lambda path: ours(path) or path in FAKES)
