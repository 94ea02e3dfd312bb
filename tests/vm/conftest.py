"""Tests that run in real machines; the kernels come from the command line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.fixtures.machines import RUN
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from tests.vm.inner import InnerRun

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.vm)


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> QemuProvider:
    """The provider of this run, for tests that make machines themselves."""
    made = request.config.stash[RUN].provider
    if not isinstance(made, QemuProvider):
        pytest.skip("looks into machines of the provider qemu")
    return made


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> MachineSpec:
    return request.config.stash[RUN].machine_spec


@pytest.fixture
def newest_only(kernel: Kernel) -> None:
    """For what does not depend on the kernel at all: run it on one."""
    if not kernel.version.matches(">=7.0"):
        pytest.skip("does not depend on the kernel: it runs on the newest")


@pytest.fixture
def oldest_or_newest(kernel: Kernel) -> None:
    """For what hardly depends on the kernel: run it on the two that differ most."""
    if not kernel.version.matches("<5.11") and not kernel.version.matches(">=7.0"):
        pytest.skip("hardly depends on the kernel: it runs on the oldest and the newest")


@pytest.fixture
def inner(kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[InnerRun]:
    """Whole runs of pytest, apart from this one; in a short path, because sockets lie below it."""
    cache = request.config.stash[RUN].config.cache_root
    # Before it is linked into those of inner runs: some have a small disk, with room for a machine alone.
    build_initramfs(Cache(cache), kernel)
    folder = Path(tempfile.mkdtemp(prefix="kfs-", dir="/tmp"))
    run = InnerRun(folder, cache, kernel.release)
    yield run
    run.close()
