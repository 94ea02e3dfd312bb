"""Measurements keep every sample and tell the worst first."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kernelfs.measure import Measurement

SAMPLES = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=200)


def of(*samples: float) -> Measurement:
    return Measurement.of("umount", "s", samples)


@given(SAMPLES, st.floats(0.01, 100))
def test_a_percentile_was_really_measured(samples: list[float], percent: float) -> None:
    assert of(*samples).percentile(percent) in samples


@given(SAMPLES, st.floats(0.01, 100))
def test_that_many_samples_are_not_above_the_percentile(samples: list[float], percent: float) -> None:
    value = of(*samples).percentile(percent)
    below = sum(sample < value for sample in samples)
    not_above = sum(sample <= value for sample in samples)
    assert below < percent / 100 * len(samples) + 1e-9
    assert not_above >= percent / 100 * len(samples) - 1e-9


@given(SAMPLES, st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_higher_percentile_is_not_smaller(samples: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert of(*samples).percentile(low) <= of(*samples).percentile(high)


@given(SAMPLES)
def test_the_hundredth_percentile_is_the_maximum(samples: list[float]) -> None:
    assert of(*samples).percentile(100) == of(*samples).max == max(samples)


@given(SAMPLES)
def test_the_median_is_the_lower_of_the_two_in_the_middle(samples: list[float]) -> None:
    assert of(*samples).median == statistics.median_low(samples)


@given(SAMPLES)
def test_the_order_of_samples_is_kept_and_does_not_matter(samples: list[float]) -> None:
    there, back = of(*samples), of(*reversed(samples))
    assert list(there.samples) == samples
    assert (there.max, there.p99, there.median) == (back.max, back.p99, back.median)


@given(SAMPLES)
def test_the_dictionary_survives_json(samples: list[float]) -> None:
    data = of(*samples).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["n"] == len(data["samples"]) == len(samples)
    assert (data["max"], data["p99"], data["median"]) == (max(samples), of(*samples).p99, of(*samples).median)


def test_one_bad_sample_in_a_hundred_is_the_maximum_but_not_the_99th_percentile() -> None:
    measured = of(*[0.001] * 99, 4.05)
    assert (measured.max, measured.p99, measured.median) == (4.05, 0.001, 0.001)


def test_there_is_no_measurement_without_samples() -> None:
    with pytest.raises(ValueError, match="'umount' has no samples"):
        of()


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_outside_of_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="above 0 and up to 100"):
        of(1.0).percentile(percent)


def test_several_samples_are_told_by_their_worst_first() -> None:
    assert str(of(0.5, 4.0512, 1.0)) == "umount: max 4.051 s, p99 4.051, median 1.000, n 3"


def test_a_single_sample_is_told_without_statistics() -> None:
    assert str(of(0.25)) == "umount: max 0.250 s"
