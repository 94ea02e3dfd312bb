"""What Vagrant made and never noted, by the names that it has on a hypervisor."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.vagrant import leftovers

URI = "qemu:///system"


class Item:
    """A domain, pool or volume that notes what is done with it."""

    def __init__(self, name: str, volumes: list[Item] | None = None, active: bool = True) -> None:
        self._name = name
        self._volumes = volumes or []
        self._active = active
        self.done: list[str] = []

    def name(self) -> str:
        return self._name

    def isActive(self) -> bool:  # noqa: N802
        return self._active

    def listAllVolumes(self) -> list[Item]:  # noqa: N802
        assert self._active, "such a pool cannot be asked"
        return self._volumes

    def destroy(self) -> None:
        self.done.append("destroy")

    def undefineFlags(self, flags: int) -> None:  # noqa: N802
        self.done.append("undefine")

    def delete(self) -> None:
        self.done.append("delete")


class FakeConnection:
    """A hypervisor of this host, or another."""

    def __init__(self, domains: list[Item], pools: list[Item], local: bool = True) -> None:
        self.uri = URI
        self.local = local
        self.handle = self
        self.closed = False
        self._domains, self._pools = domains, pools

    def listAllDomains(self) -> list[Item]:  # noqa: N802
        return self._domains

    def listAllStoragePools(self) -> list[Item]:  # noqa: N802
        return self._pools

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def gone() -> str:
    """What the names begin with that a process gave which has ended."""
    pytest.importorskip("libvirt")
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = lease.ProcessId.of(process.pid)
        process.kill()
    namespace = f"{Path('/proc/self/ns/pid').stat().st_ino:x}"
    return f"kernelfs-{owner.pid}-{owner.start}-{namespace}-ab_12cd9"


def test_what_nobody_owns_any_more_goes(gone: str) -> None:
    ours = lease.ProcessId.of(os.getpid())
    alive = gone.replace(gone.rpartition("-")[0], f"kernelfs-{ours.pid}-{ours.start}-{gone.split('-')[3]}")
    domains = [Item(f"{name}-default") for name in (gone, alive)] + [Item("kernelfs-db"), Item("mine")]
    volumes = [Item(f"{name}-default.img") for name in (gone, alive)] + [
        Item("kernelfs_vagrant_box_image.img")
    ]
    pools = [Item("default", volumes), Item("off", active=False)]
    connection: Any = FakeConnection(domains, pools)
    assert leftovers.collect(connection) == [
        f"ended the domain {gone}-default at {URI}",
        f"removed the volume {gone}-default.img at {URI}",
    ]
    assert [each.done for each in domains] == [["destroy", "undefine"], [], [], []]
    assert [each.done for each in volumes] == [["delete"], [], []]


@pytest.mark.parametrize(("local", "lines"), [(True, 1), (False, 0)])
def test_process_numbers_mean_something_on_their_own_host_only(
    gone: str, monkeypatch: pytest.MonkeyPatch, local: bool, lines: int
) -> None:
    connection = FakeConnection([Item(f"{gone}-default")], [], local)
    monkeypatch.setattr(leftovers, "Connection", lambda _uri: connection)
    assert len(leftovers.collect_at(URI)) == lines
    assert connection.closed
