"""Reads that take too long are caught, and quick ones are not."""

from __future__ import annotations

import re

import pytest

from pytest_kernelfs import AssertReadUnder, Cgroup, DiskFactory


def test_a_slow_read_is_caught_and_quick_ones_are_not(
    disk_factory: DiskFactory, cgroup: Cgroup, assert_read_under: AssertReadUnder
) -> None:
    # The pages of a device are dropped when it is closed, so every read has to wait for it.
    disk = disk_factory(size="1M", read_bps="1M")
    with pytest.raises(AssertionError) as caught:
        assert_read_under(disk.path, 0.3, repeat=2)
    text = str(caught.value)
    # The throttle lets some of the first read through at once.
    assert re.match(rf"[12] of 2 reads of {disk.path} took longer than 300.000 ms, at most ", text)
    assert "1.0 MiB each" in text

    run = assert_read_under(cgroup.file("memory.stat"), 60.0, repeat=10)
    assert len(run.seconds) == 10
    assert run.size > 500
    assert run.measurement.max < 60.0
