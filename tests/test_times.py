"""Times as users write them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.times import parse_time


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        ("3", 3.0),
        ("1.5s", 1.5),
        ("100ms", 0.1),
        (" 50 us ", 50e-6),
        ("7ns", 7e-9),
    ],
)
def test_seconds_come_out(written: float | str, seconds: float) -> None:
    assert parse_time(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written", [-1, -0.1, "-1s", "soon", "", "1h", "1 0ms", float("inf"), float("nan"), True, None]
)
def test_anything_else_is_named(written: Any) -> None:
    with pytest.raises(UsageError, match=r"delay .* is no time"):
        parse_time(written, "delay")
