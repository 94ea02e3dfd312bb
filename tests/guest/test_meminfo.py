"""Memory figures, once and over time."""

from __future__ import annotations

import threading
import time

from pytest_kernelfs.guest import meminfo


def test_figures_are_in_bytes() -> None:
    total = meminfo.read("MemTotal")["MemTotal"]
    assert total % 1024 == 0
    assert total > 1 << 26


def test_only_what_is_named_is_read() -> None:
    assert set(meminfo.read("Dirty", "Writeback")) == {"Dirty", "Writeback"}


def test_all_is_read_without_names() -> None:
    assert {"MemTotal", "MemFree", "Dirty", "Writeback"} <= set(meminfo.read())


def test_a_watch_samples_before_meanwhile_and_after() -> None:
    deadline = time.monotonic() + 120
    with meminfo.Watch(0.001) as watch:
        while len(watch.samples) < 4:
            assert time.monotonic() < deadline
    times = [sample[0] for sample in watch.samples]
    assert times == sorted(times)
    assert 0 <= times[0] < 120
    assert all(dirty >= 0 and writeback >= 0 for _, dirty, writeback in watch.samples)


def test_another_may_look_in_the_same_thread() -> None:
    looked = threading.Event()
    with meminfo.Watch(0.001, beside=looked.set):
        assert looked.wait(120)


def test_a_watch_that_ends_at_once_has_two_samples_and_no_thread() -> None:
    before = threading.enumerate()
    with meminfo.Watch(60.0) as watch:
        pass
    assert len(watch.samples) == 2
    assert set(threading.enumerate()) <= set(before)
