"""What the vagrant provider takes, and what it hands to the Vagrantfile."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable, UsageError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.kernels.version import KernelVersion
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.vagrant import box, places
from pytest_kernelfs.machines.vagrant import provider as provider_module
from pytest_kernelfs.machines.vagrant.provider import VagrantProvider
from pytest_kernelfs.machines.vagrant.settings import VagrantSettings

KERNEL = Kernel(KernelVersion.parse("6.1.1"), "6.1.1", "test", "0", Path("/vmlinuz"))


def provider(tmp_path: Path, **settings: object) -> VagrantProvider:
    return VagrantProvider(Settings(tmp_path), VagrantSettings(**settings))  # type: ignore[arg-type]


def test_tests_share_a_machine_unless_told_otherwise(tmp_path: Path) -> None:
    assert provider(tmp_path).isolation == "session"
    assert provider(tmp_path).own_kernel() is None


def test_our_box_is_for_libvirt(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name one with --kernelfs-vagrant-box"):
        provider(tmp_path, hypervisor="virtualbox")
    provider(tmp_path, hypervisor="virtualbox", box="debian/bookworm64")


def test_a_folder_needs_a_vagrantfile(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Vagrantfile in"):
        provider(tmp_path, folder=tmp_path)


def test_a_home_that_ssh_cannot_be_told_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="choose another folder with --kernelfs-cache"):
        provider(tmp_path / "${HOME}")
    provider(tmp_path / "${HOME}", box="debian/bookworm64")
    monkeypatch.setenv("VAGRANT_HOME", "/${HOME}")
    with pytest.raises(UsageError, match="VAGRANT_HOME"):
        provider(tmp_path, box="debian/bookworm64")


def test_a_home_of_ours_is_for_our_box_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "home_with_box", lambda _cache: Path("/home-of-ours"))
    assert provider(tmp_path)._home() == {"VAGRANT_HOME": "/home-of-ours"}
    assert provider(tmp_path, box="debian/bookworm64")._home() == {}


def test_a_libvirt_that_does_not_answer_is_told_before_the_box_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise ProviderUnavailable("libvirtd does not answer")

    monkeypatch.setattr(provider_module, "require_libvirt", refuse)
    monkeypatch.setattr(box, "home_with_box", lambda _cache: pytest.fail("there is no use for it"))
    with pytest.raises(ProviderUnavailable, match="libvirtd does not answer"):
        provider(tmp_path).prove(KERNEL)
    provider(tmp_path, hypervisor="virtualbox", box="debian/bookworm64").prove(KERNEL)


def test_virtualbox_gets_no_kernel(tmp_path: Path) -> None:
    made = provider(tmp_path, hypervisor="virtualbox", box="debian/bookworm64")
    place = places.Place(tmp_path / "7-8-9", tmp_path, tmp_path)
    assert made._environment(place, KERNEL, MachineSpec(512 << 20, 2)) == {
        "KERNELFS_VM_BOX": "debian/bookworm64",
        "KERNELFS_VM_MEMORY": "512",
        "KERNELFS_VM_CPUS": "2",
        "KERNELFS_VM_NAME": "kernelfs-7-8-9",
        "KERNELFS_VM_TIMEOUT": "120",
    }


def test_a_kernel_that_does_not_come_up_is_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(_cache: object) -> Path:
        tried.append(1)
        raise InfrastructureError("it panicked")

    monkeypatch.setattr(box, "home_with_box", fail)
    made = provider(tmp_path)
    for _ in range(4):
        with pytest.raises(InfrastructureError, match="it panicked"):
            made.start(KERNEL, MachineSpec(512 << 20, 1))
    assert len(tried) == 2
    with pytest.raises(InfrastructureError, match="it panicked"):
        made.start(KERNEL, MachineSpec(1024 << 20, 1))
    assert len(tried) == 3


def test_what_is_missing_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(_cache: object) -> Path:
        tried.append(1)
        raise ProviderUnavailable("something is missing")

    monkeypatch.setattr(box, "home_with_box", fail)
    made = provider(tmp_path)
    for _ in range(2):
        with pytest.raises(ProviderUnavailable, match="something is missing"):
            made.start(KERNEL, MachineSpec(512 << 20, 1))
    assert len(tried) == 1
