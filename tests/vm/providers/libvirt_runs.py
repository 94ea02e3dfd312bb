"""Whole runs of pytest whose machines libvirt runs, beside a libvirtd of the test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm.inner import InnerRun
from tests.vm.providers.hypervisor import URI, Hypervisor

# KVM is asked for by one test alone: to prove that it hangs takes 10 s.
OPTIONS = (
    "--kernelfs-provider=libvirt",
    f"--kernelfs-libvirt-uri={URI}",
    "--kernelfs-accel=tcg",
    "--kernelfs-boot-timeout=240",
)


class LibvirtRun(InnerRun):
    """Runs inside the namespaces of ``hypervisor``."""

    def __init__(self, hypervisor: Hypervisor, folder: Path, cache: Path, release: str) -> None:
        super().__init__(folder, cache, release, hypervisor.inside)
        self.hypervisor = hypervisor

    def left(self) -> list[str]:
        """What lies at the hypervisor: machines, domains, pools, files."""
        machines = [f"machine {pid}" for pid in self.hypervisor.machines()]
        domains = self.hypervisor.virsh("list", "--all", "--name").split()
        pools = self.hypervisor.virsh("pool-list", "--all", "--name").split()
        files = [str(path) for path in (self.hypervisor.folder / "lib/images").rglob("*")]
        return [*machines, *domains, *pools, *files]


@contextmanager
def libvirt_run(hypervisor: Hypervisor, cache: Path, release: str) -> Iterator[LibvirtRun]:
    """A LibvirtRun in a folder of its own; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kfs-", dir="/tmp"))
    try:
        run = LibvirtRun(hypervisor, folder, cache, release)
        try:
            yield run
        finally:
            run.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
