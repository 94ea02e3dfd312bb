"""Disks are plugged in behind a throttle each, and leave nothing when they go."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.qemu.command import DISK_PORTS
from pytest_kernelfs.machines.qemu.disks import DiskBay, Plug
from pytest_kernelfs.machines.qemu.qmp import Monitor

SPEC = DiskSpec(1 << 20, write_bps=20 << 20)


class FakeMonitor:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def execute(self, command: str, timeout: float = 0, **arguments: Any) -> None:
        self.told.append((command, arguments))

    def wait_deleted(self, device: str, timeout: float = 0) -> None:
        self.told.append(("wait_deleted", {"device": device}))

    def finish_job(self, job: str, timeout: float = 0) -> None:
        self.told.append(("finish_job", {"job": job}))

    def arguments(self, command: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.told if name == command]


@pytest.fixture
def monitor() -> FakeMonitor:
    return FakeMonitor()


@pytest.fixture
def bay(monitor: FakeMonitor, tmp_path: Path) -> DiskBay:
    return DiskBay(cast("Monitor", monitor), tmp_path)


def test_a_disk_that_is_larger_than_any_file_is_refused(
    bay: DiskBay, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(io.BytesIO):
        def truncate(self, size: int | None = None) -> int:
            raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(Path, "open", lambda *_: Small())
    with pytest.raises(UsageError, match=r"a disk of 100.0 TiB is larger than a file may be"):
        bay.attach(DiskSpec(100 << 40))


def test_a_disk_is_a_sparse_file_of_its_size(bay: DiskBay, tmp_path: Path) -> None:
    bay.attach(DiskSpec(1 << 40))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == 1 << 40
    assert file.stat().st_blocks == 0


def test_a_disk_is_found_by_its_serial_number(bay: DiskBay, monitor: FakeMonitor) -> None:
    serial = bay.attach(SPEC)
    (device,) = monitor.arguments("device_add")
    assert (device["driver"], device["serial"], device["bus"]) == ("virtio-blk-pci", serial, "port0")


def test_a_disks_speed_is_limited_before_it_is_there(bay: DiskBay, monitor: FakeMonitor) -> None:
    serial = bay.attach(SPEC)
    assert [name for name, _ in monitor.told] == ["object-add", "blockdev-add", "device_add"]
    (limit,) = monitor.arguments("object-add")
    assert limit["limits"] == {"bps-write": 20 << 20, "bps-read": 0, "iops-total": 0}
    (node,) = monitor.arguments("blockdev-add")
    assert (node["driver"], node["throttle-group"]) == ("throttle", f"limit-{serial}")


def test_a_flush_ends_in_the_hosts_page_cache(bay: DiskBay, monitor: FakeMonitor) -> None:
    bay.attach(SPEC)
    node: dict[str, Any] | None = monitor.arguments("blockdev-add")[0]
    while node is not None:
        assert node["cache"] == {"direct": False, "no-flush": True}
        inner = node.get("file")
        node = inner if isinstance(inner, dict) else None


def test_each_disk_has_a_port_and_a_number_of_its_own(bay: DiskBay, monitor: FakeMonitor) -> None:
    serials = [bay.attach(SPEC) for _ in range(DISK_PORTS)]
    assert len(set(serials)) == DISK_PORTS
    assert len({device["bus"] for device in monitor.arguments("device_add")}) == DISK_PORTS


def test_more_disks_than_ports_are_refused(bay: DiskBay) -> None:
    for _ in range(DISK_PORTS):
        bay.attach(SPEC)
    with pytest.raises(UsageError, match=f"holds {DISK_PORTS} disks and all are in use"):
        bay.attach(SPEC)


def test_a_detached_disk_leaves_nothing(bay: DiskBay, monitor: FakeMonitor, tmp_path: Path) -> None:
    serial = bay.attach(SPEC)
    monitor.told.clear()
    bay.detach(serial)
    assert list(tmp_path.iterdir()) == []
    assert [name for name, _ in monitor.told] == ["device_del", "wait_deleted", "blockdev-del", "object-del"]


def test_a_free_port_is_used_again_but_no_number_is(bay: DiskBay, monitor: FakeMonitor) -> None:
    first, second = bay.attach(SPEC), bay.attach(SPEC)
    bay.detach(first)
    third = bay.attach(SPEC)
    assert third not in (first, second)
    assert monitor.arguments("device_add")[-1]["bus"] == "port0"


def test_a_disk_that_is_not_there_cannot_be_detached(bay: DiskBay) -> None:
    with pytest.raises(InfrastructureError, match="there is no disk kfs9"):
        bay.detach("kfs9")


def test_a_new_speed_replaces_all_limits(bay: DiskBay, monitor: FakeMonitor) -> None:
    serial = bay.attach(SPEC)
    bay.throttle(serial, DiskSpec(1 << 20, read_bps=5, iops=7))
    (change,) = monitor.arguments("qom-set")
    assert change["path"] == f"/objects/limit-{serial}"
    assert change["value"] == {"bps-write": 0, "bps-read": 5, "iops-total": 7}


@pytest.mark.parametrize("size", [512, 4096])
def test_sectors_have_the_size_that_was_asked_for(bay: DiskBay, monitor: FakeMonitor, size: int) -> None:
    bay.attach(DiskSpec(1 << 20, sector_size=size))
    (device,) = monitor.arguments("device_add")
    assert (device["logical_block_size"], device["physical_block_size"]) == (size, size)


def test_a_disk_without_a_cache_cannot_be_given_one(bay: DiskBay, monitor: FakeMonitor) -> None:
    bay.attach(DiskSpec(1 << 20, cache="writethrough"))
    bay.attach(DiskSpec(1 << 20))
    through, back = monitor.arguments("device_add")
    assert (through["write-cache"], through["config-wce"]) == ("off", False)
    assert back["write-cache"] == "on"


def test_a_record_is_kept_between_throttle_and_image(
    bay: DiskBay, monitor: FakeMonitor, tmp_path: Path
) -> None:
    serial = bay.attach(DiskSpec(1 << 20, power_cut=True))
    (node,) = monitor.arguments("blockdev-add")
    record = node["file"]
    assert (node["driver"], record["driver"]) == ("throttle", "blklogwrites")
    assert record["cache"]["no-flush"] is False
    assert record["file"]["file"]["filename"] == str(tmp_path / f"{serial}.raw")
    assert record["log"]["filename"] == str(tmp_path / f"{serial}.log")
    assert record["log-sector-size"] == 512
    bay.detach(serial)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_is_handed_on_under_its_number(bay: DiskBay, monitor: FakeMonitor, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"content")
    bay.adopt(Plug("kfs7", 3, SPEC), content)
    assert (tmp_path / "kfs7.raw").read_bytes() == b"content"
    (device,) = monitor.arguments("device_add")
    assert (device["serial"], device["bus"]) == ("kfs7", "port3")
    assert bay.attach(SPEC) != "kfs7"


def test_a_recorded_disk_is_handed_on_below_an_empty_image(
    bay: DiskBay, monitor: FakeMonitor, tmp_path: Path
) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"content")
    bay.adopt(Plug("kfs7", 3, DiskSpec(1 << 20, power_cut=True)), content)
    (below,) = (plug.below for plug in bay.plugs)
    assert below is not None
    assert below.read_bytes() == b"content"
    (made,) = monitor.arguments("blockdev-create")
    assert made["options"]["backing-file"] == str(below)
    image = monitor.arguments("blockdev-add")[-1]["file"]["file"]
    assert (image["driver"], image["file"]["filename"]) == ("qcow2", str(tmp_path / "kfs7.qcow2"))
    bay.detach("kfs7")
    assert list(tmp_path.iterdir()) == []
