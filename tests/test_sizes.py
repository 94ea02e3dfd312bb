"""Sizes as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.sizes import format_size, parse_size

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("64K", 65536),
        ("8M", 8 << 20),
        ("2g", 2 << 30),
        ("1T", 1 << 40),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        (" 64 KiB ", 65536),
        ("64KB", 65536),
        ("7B", 7),
    ],
)
def test_a_size_is_read_in_powers_of_1024(written: int | str, size: int) -> None:
    assert parse_size(written) == size


@given(st.integers(0, 10**15 - 1), st.sampled_from(sorted(UNITS)))
def test_whole_numbers_are_read_exactly(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * UNITS[unit]


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "-1M", "1P", "1e3", "1,5G", "8M8", "nan", "0x10", ".5G", "5.G"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        size = parse_size(text)
    except UsageError:
        size = 0
    assert size >= 0


@pytest.mark.parametrize("text", ["9" * 400, "1\u212a"], ids=["four hundred digits", "kelvin sign"])
def test_odd_text_is_refused_too(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("value", [None, True, 1.5, b"1M"])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="is no size; write bytes as an int"):
        parse_size(value)  # type: ignore[arg-type]


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(UsageError, match="disk size -1 is negative"):
        parse_size(-1, "disk size")


def test_the_error_names_what_the_size_is_for() -> None:
    with pytest.raises(UsageError, match=r"^write_bps 'fast' is no size"):
        parse_size("fast", "write_bps")


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (83886080, "80.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 52, "4096.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_a_size_is_shown_in_the_unit_that_fits(size: int, shown: str) -> None:
    assert format_size(size) == shown


@given(st.integers(0, 1 << 50))
def test_what_is_shown_can_be_read_again(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.05, abs=1)
