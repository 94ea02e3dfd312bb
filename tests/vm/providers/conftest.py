"""What the tests of machine providers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.fixtures.machines import RUN
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from tests.vm.providers.here import alone_on_this_host
from tests.vm.providers.hypervisor import Hypervisor, running
from tests.vm.providers.libvirt_runs import LibvirtRun, libvirt_run
from tests.vm.providers.sshd import SshdMachine


@pytest.fixture
def this_host() -> Iterator[None]:
    """This host is the machine of the test: see tests/vm/providers/here.py."""
    with alone_on_this_host():
        yield


@pytest.fixture
def hypervisor() -> Iterator[Hypervisor]:
    """A libvirtd of the test's own, with nothing defined in it; see tests/vm/providers/hypervisor.py."""
    with running() as hypervisor:
        yield hypervisor


@pytest.fixture
def libvirt(hypervisor: Hypervisor, kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[LibvirtRun]:
    """Whole runs of pytest beside that libvirtd."""
    pytest.importorskip("libvirt", reason="libvirt-python is missing: run 'kernelfs setup --for-tests'")
    with libvirt_run(hypervisor, request.config.stash[RUN].config.cache_root, kernel.release) as run:
        yield run


@pytest.fixture(scope="session")
def boot_sshd(kernel: Kernel, request: pytest.FixtureRequest) -> Callable[[], SshdMachine]:
    """Boots a machine with an sshd; see tests/vm/providers/sshd.py."""
    if not kernel.version.matches(">=7.0"):
        pytest.skip("hardly depends on the kernel: it runs on the newest")
    run = request.config.stash[RUN]
    provider = run.provider
    assert isinstance(provider, QemuProvider)
    accel = provider.accelerator(kernel).name
    return lambda: SshdMachine(kernel, Cache(run.config.cache_root), accel)


@pytest.fixture(scope="session")
def sshd_machine(boot_sshd: Callable[[], SshdMachine]) -> Iterator[SshdMachine]:
    """A machine with an sshd that runs on for all tests: what any leaves there, others may find."""
    machine = boot_sshd()
    yield machine
    machine.close()
