"""``kernelfs gc`` and ``kernelfs ps``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError, KernelNotFound, ProviderUnavailable
from pytest_kernelfs.machines import housekeeping, lease
from tests.cli.conftest import Kernelfs


@pytest.mark.parametrize(
    ("removed", "says"), [(["removed /tmp/a"], "removed /tmp/a\n"), ([], "nothing to remove\n")]
)
def test_gc(kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch, removed: list[str], says: str) -> None:
    monkeypatch.setattr(lease, "collect", lambda _scratch: removed)
    assert kernelfs("gc").stdout == says


def test_gc_keeps_the_cache_in_the_size_that_runs_keep_it_in(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def tidy(_cache: Cache, limit: int) -> list[str]:
        limits.append(limit)
        return []

    monkeypatch.setattr(housekeeping, "tidy", tidy)
    assert kernelfs("gc").exit_code == 0
    monkeypatch.setenv("KERNELFS_CACHE_SIZE", "3G")
    assert kernelfs("gc").exit_code == 0
    assert kernelfs("gc", "--cache-size", "1G").exit_code == 0
    assert limits == [10 << 30, 3 << 30, 1 << 30]
    monkeypatch.setenv("KERNELFS_CACHE_SIZE", "much")
    result = kernelfs("gc")
    assert result.exit_code == 4
    assert "--cache-size (or KERNELFS_CACHE_SIZE)" in result.stderr


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (KernelNotFound("no such kernel"), 4),
        (InfrastructureError("the disk is full"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
    ],
)
def test_our_errors_are_one_line_and_an_exit_code(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int
) -> None:
    def fail(_scratch: Path) -> list[str]:
        raise error

    monkeypatch.setattr(lease, "collect", fail)
    result = kernelfs("gc")
    assert result.exit_code == exit_code
    assert result.stderr.startswith("kernelfs: error: ")
    assert result.stderr.endswith(f"{error}\n")


@pytest.fixture
def hypervisors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes where gc cleaned up; those whose name says so do not answer."""
    asked: list[str] = []

    def collect_at(uri: str) -> list[str]:
        asked.append(uri)
        if "dead" in uri:
            raise ProviderUnavailable(f"cannot connect to libvirt at {uri}")
        return [f"ended the domain x at {uri}"]

    def vagrants(uri: str) -> list[str]:
        return [f"removed the volume y at {uri}"]

    monkeypatch.setattr("pytest_kernelfs.machines.libvirt.leftovers.collect_at", collect_at)
    monkeypatch.setattr("pytest_kernelfs.machines.vagrant.leftovers.collect_at", vagrants)
    return asked


def test_gc_tells_what_it_did_when_a_hypervisor_does_not_answer(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch, hypervisors: list[str]
) -> None:
    monkeypatch.setattr("pytest_kernelfs.guest.tenant.collect", lambda: ["a mount"])
    monkeypatch.setattr(lease, "collect", lambda _scratch: ["removed /tmp/a"])
    monkeypatch.setattr(housekeeping, "tidy", lambda _cache, _limit: ["removed /cache/b"])
    uris = ["dead:///one", "test:///two", "dead:///three"]
    result = kernelfs("gc", *(f"--libvirt-uri={uri}" for uri in uris))
    assert result.stdout.splitlines() == [
        "undid on this host: a mount",
        "removed /tmp/a",
        "removed /cache/b",
        "ended the domain x at test:///two",
        "removed the volume y at test:///two",
    ]
    assert result.stderr.splitlines() == [
        "kernelfs: error: cannot connect to libvirt at dead:///one",
        "kernelfs: error: cannot connect to libvirt at dead:///three",
    ]
    assert (result.exit_code, hypervisors) == (1, uris)


def test_gc_goes_on_with_the_rest_when_a_part_of_it_fails(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_scratch: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(lease, "collect", refuse)
    monkeypatch.setattr(housekeeping, "tidy", lambda _cache, _limit: ["removed /cache/b"])
    result = kernelfs("gc")
    assert (result.exit_code, result.stdout) == (1, "removed /cache/b\n")
    assert result.stderr.endswith("Permission denied: '/x'\n")


def test_ps_lists_machines_with_their_owners(kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "running", list)
    assert kernelfs("ps").stderr == "kernelfs: no machine of yours is running\n"
    ours = lease.ProcessId.of(os.getpid())
    gone = lease.ProcessId(2**22 + 1, 5)
    monkeypatch.setattr(lease, "running", lambda: [("6.1.0-50-amd64", ours, ours), ("6.12.48", gone, ours)])
    result = kernelfs("ps")
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["PID", "KERNEL", "AGE", "OWNER", "OWNER'S", "COMMAND"]
    assert first.split()[:2] == [str(os.getpid()), "6.1.0-50-amd64"]
    assert "python" in first
    assert second.endswith(f"{gone.pid}  (gone)")
