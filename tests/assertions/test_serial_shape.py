"""The shape of umounts one after another, and how another shape is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_kernelfs.assertions.serial_shape import serial_shape
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.probes.umount import UmountRun

RUN = UmountRun(
    parallel=False,
    paths=("/mnt/a", "/mnt/b", "/mnt/c"),
    seconds=(4.05, 0.001, 0.02),
    errors=("", "", ""),
    written={},
    dirty=(0, 0),
    writeback=(0, 0),
)


@pytest.mark.parametrize(
    "seconds", [(8.0, 0.03, 0.03), (4.05, 0.001), (0.115, 0.0, 0.0, 0.0), (1.0, 0.1, 0.1, 0.1), [1, 0]]
)
def test_a_first_that_pays_for_all_is_good(seconds: list[float]) -> None:
    serial_shape(seconds)


def test_what_the_umount_assertion_gave_is_taken() -> None:
    serial_shape(RUN)


def test_equal_times_are_told() -> None:
    with pytest.raises(AssertionError) as caught:
        serial_shape((0.012, 0.01, 0.011), kernel="6.1.176")
    assert str(caught.value) == (
        "the first umount does not pay for all: the first of 3 umounts took 36% of the time of all, "
        "less than 75%; 2 of the 2 others took longer than 0.001 s, 10% of the first (kernel 6.1.176)\n"
        "    1.    0.012 s\n"
        "    2.    0.010 s  over\n"
        "    3.    0.011 s  over\n"
        "  each pays for itself, or there was hardly anything to write back"
    )


def test_one_slow_later_umount_is_told() -> None:
    with pytest.raises(AssertionError) as caught:
        serial_shape((4.0, 0.001, 0.5))
    assert str(caught.value).splitlines()[0] == (
        "the first umount does not pay for all: 1 of the 2 others took longer than 0.400 s, 10% of the first"
    )
    serial_shape((4.0, 0.001, 0.5), rest_at_most=0.2)


def test_many_small_ones_may_be_too_much_together() -> None:
    with pytest.raises(AssertionError, match="took 53% of the time of all"):
        serial_shape((1.0, *[0.1] * 9))
    serial_shape((1.0, *[0.1] * 9), first_share=0.5)


def test_no_time_at_all_is_no_shape() -> None:
    with pytest.raises(AssertionError, match="took 0% of the time"):
        serial_shape((0.0, 0.0))


def test_a_failed_umount_is_told() -> None:
    with pytest.raises(AssertionError, match="1 failed") as caught:
        serial_shape(replace(RUN, errors=("", "Device or resource busy", "")))
    assert "0.001 s  Device or resource busy" in str(caught.value)


def test_what_has_no_such_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="one after another"):
        serial_shape(replace(RUN, parallel=True))
    with pytest.raises(UsageError, match="says nothing"):
        serial_shape([1.0])
    with pytest.raises(UsageError, match="between 0 and 1"):
        serial_shape([1.0, 0.0], first_share=1.5)
