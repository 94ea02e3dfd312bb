"""Times as users write them: seconds as a number, or "100ms", "50us", "1.5s"."""

from __future__ import annotations

import math
import re

from pytest_kernelfs.errors import UsageError

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|ms|us|ns|)", re.ASCII)

Time = float | str


def parse_time(time: Time, what: str = "time") -> float:
    """Seconds, 0 or more.

    Raises: UsageError, naming ``what``, for anything else than a time.
    """
    if isinstance(time, str):
        match = _TIME.fullmatch(time.strip())
        if match is not None:
            return float(match[1]) * _UNITS[match[2]]
    elif not isinstance(time, bool) and isinstance(time, (int, float)) and 0 <= time < math.inf:
        return float(time)
    raise UsageError(
        f"{what} {time!r} is no time; write seconds as a number of 0 or more, or '100ms', '50us', '1.5s'"
    )
