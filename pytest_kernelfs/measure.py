"""Measurements: every sample is kept, and the worst is what is reported first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """All samples of one quantity, in ``unit``; there is at least one."""

    name: str
    unit: str
    samples: tuple[float, ...]

    @classmethod
    def of(cls, name: str, unit: str, samples: Iterable[float]) -> Measurement:
        """Raises: ValueError without samples."""
        kept = tuple(float(sample) for sample in samples)
        if not kept:
            raise ValueError(f"the measurement {name!r} has no samples")
        return cls(name, unit, kept)

    @property
    def max(self) -> float:
        return max(self.samples)

    @property
    def median(self) -> float:
        return self.percentile(50)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    def percentile(self, percent: float) -> float:
        """The nearest-rank percentile: a sample that was really seen, never one between two."""
        if not 0 < percent <= 100:
            raise ValueError(f"a percentile lies above 0 and up to 100, not at {percent}")
        return sorted(self.samples)[math.ceil(percent / 100 * len(self.samples)) - 1]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values, with max, p99, median and n beside the samples."""
        return {
            "name": self.name,
            "unit": self.unit,
            "max": self.max,
            "p99": self.p99,
            "median": self.median,
            "n": len(self.samples),
            "samples": list(self.samples),
        }

    def __str__(self) -> str:
        shown = f"{self.name}: max {self.max:.3f} {self.unit}"
        if len(self.samples) == 1:
            return shown
        return f"{shown}, p99 {self.p99:.3f}, median {self.median:.3f}, n {len(self.samples)}"
