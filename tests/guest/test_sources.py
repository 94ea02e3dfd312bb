"""What the sampler's sources make of the kernel's files."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pytest_kernelfs.guest import psi, sources
from pytest_kernelfs.guest.dispatch import GuestError


def serve(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Let the sources read these texts, one after another."""
    left = iter(texts)
    monkeypatch.setattr(sources, "open", lambda path: io.StringIO(next(left)), raising=False)


def disk(name: str, writes: int = 0, sectors: int = 0, in_flight: int = 0) -> str:
    return f" 254 0 {name} 5 0 16 3 {writes} 0 {sectors} 7 {in_flight} 9 10 0 0 0 0\n"


def by_name(values: list[tuple[str, str, float]]) -> dict[str, float]:
    return {name: value for name, _, value in values}


def test_disks_are_told_as_rates_and_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: not path.endswith("vda1"))
    serve(monkeypatch, disk("vda") + disk("vda1"), disk("vda", 10, 2048, 3) + disk("vda1", 10, 2048))
    source = sources.DiskIo(0.05)
    assert by_name(source.sample(100.0)) == {"vda.in_flight": 0}
    assert by_name(source.sample(100.5)) == {
        "vda.read": 0,
        "vda.written": 2 << 20,
        "vda.iops": 20,
        "vda.in_flight": 3,
    }
    assert source.grown == {"vda.read": 0, "vda.written": 1 << 20, "vda.iops": 10}


def test_a_loop_device_is_told_from_its_first_request_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: True)
    idle = " 7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n"
    serve(monkeypatch, idle, " 7 0 loop0 0 0 0 0 4 0 8 0 1 0 0\n")
    source = sources.DiskIo(0.05)
    assert source.sample(1.0) == []
    assert by_name(source.sample(2.0))["loop0.written"] == 4096


def test_a_device_that_comes_later_or_begins_anew_has_grown_by_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: True)
    serve(monkeypatch, disk("vda", 9, 80), disk("vda", 1, 8) + disk("vdb", 5, 40))
    source = sources.DiskIo(0.05)
    source.sample(1.0)
    assert by_name(source.sample(2.0))["vda.written"] == 0
    assert source.grown["vdb.written"] == 0


def test_no_rate_is_made_of_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: True)
    serve(monkeypatch, disk("vda"), disk("vda", 1, 8))
    source = sources.DiskIo(0.05)
    source.sample(1.0)
    assert by_name(source.sample(1.001)) == {"vda.in_flight": 0}
    assert source.grown["vda.written"] == 4096


def test_pressure_is_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = iter([1.0, 1.0, 1.0, 1.25, 1.0, 9.0])
    monkeypatch.setattr(psi, "read", lambda resource: {"some": {"total": next(totals)}})
    source = sources.Psi(0.05)
    assert source.sample(10.0) == []
    assert by_name(source.sample(11.0)) == {"cpu.some": 25.0, "memory.some": 0.0, "io.some": 100.0}
    assert source.grown == {"cpu.some": 0.25, "memory.some": 0.0, "io.some": 8.0}


def test_the_run_queue_tells_how_many_wait_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    first = "version 15\ntimestamp 1\ncpu0 0 0 0 0 0 0 500 1000000000 10\ndomain0 3 0 0\n"
    second = first.replace("1000000000 10", "3000000000 30") + "cpu1 0 0 0 0 0 0 0 0 20\n"
    serve(monkeypatch, first, second)
    source = sources.RunQueue(0.05)
    assert source.sample(1.0) == []
    assert by_name(source.sample(2.0)) == {"run_queue.waiting": 2.0, "run_queue.wait_per_turn": 50.0}
    assert source.grown["run_queue.waiting"] == 2.0


def test_a_kernel_without_schedstat_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> Any:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(sources, "open", missing, raising=False)
    with pytest.raises(GuestError, match="CONFIG_SCHEDSTATS=y"):
        sources.RunQueue(0.05).sample(1.0)


def test_memory_is_told_in_bytes() -> None:
    values = sources.Meminfo(0.05).sample(1.0)
    assert {unit for _, unit, _ in values} == {"B"}
    assert {"Dirty", "Writeback", "MemAvailable"} <= set(by_name(values))
