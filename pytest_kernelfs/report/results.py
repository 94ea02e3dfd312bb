"""What became of each test on each kernel, gathered from pytest's own reports.

Everything is read from the report itself, so this works in the controller of
pytest-xdist as it does in a plain run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest

KERNEL_PROPERTY: Final = "kernelfs_kernel"
MEASUREMENT_PROPERTY: Final = "kernelfs_measurement"
ARTIFACTS_PROPERTY: Final = "kernelfs_artifacts"

# From the one that hides all others to the one that any other hides.
VERDICTS: Final = ("error", "failed", "xpassed", "xfailed", "skipped", "passed")
_RANK: Final = {verdict: rank for rank, verdict in enumerate(VERDICTS)}
_PHASES: Final = ("setup", "call", "teardown")


@dataclass(frozen=True)
class Cell:
    """One test on one kernel: its verdict, and the longest time measured in it (seconds), if any was."""

    verdict: str
    worst: float | None = None


class ResultTable:
    """Tests by kernels. ``kernels`` are ids known beforehand, in the order in which they are to stand."""

    def __init__(self, kernels: Iterable[str] = ()) -> None:
        self._kernels = dict.fromkeys(kernels)
        self._cells: dict[str, dict[str, Cell]] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take in one phase of a test; one without a kernel, or that will be repeated, is passed over."""
        kernel = self._kernel(report)
        if kernel is None or report.outcome not in ("passed", "failed", "skipped"):
            return
        self._kernels.setdefault(kernel)
        row = self._cells.setdefault(without_kernel(report.nodeid, kernel), {})
        verdict = verdict_of(report)
        if report.when == "setup" and verdict == "passed":
            return  # not a result yet: the run may be interrupted before the test is
        new = Cell(verdict, _worst_time(report.user_properties))
        row[kernel] = _combine(row.get(kernel), new)

    @property
    def kernels(self) -> list[str]:
        """Ids: those known beforehand, then the others as they came."""
        return list(self._kernels)

    @property
    def tests(self) -> list[str]:
        """Node ids without the kernel's part, as they came."""
        return list(self._cells)

    def cell(self, test: str, kernel: str) -> Cell | None:
        """The result, or None if the test did not run (to its end) on that kernel."""
        return self._cells.get(test, {}).get(kernel)

    def totals(self, kernel: str) -> Counter[str]:
        """How many tests ended with each verdict on that kernel."""
        return Counter(row[kernel].verdict for row in self._cells.values() if kernel in row)

    def __bool__(self) -> bool:
        return any(self._cells.values())

    def _kernel(self, report: pytest.TestReport) -> str | None:
        for name, value in report.user_properties:
            if name == KERNEL_PROPERTY:
                return str(value)
        if report.when in _PHASES:
            return None
        # xdist reports a worker that died with nothing but the test's name.
        return next((k for k in self._kernels if without_kernel(report.nodeid, k) != report.nodeid), None)


def verdict_of(report: pytest.TestReport) -> str:
    """One of VERDICTS: what the plugin said, else what pytest's outcome means.

    A failure outside the test itself is an error of ours unless the plugin said otherwise.
    """
    said = getattr(report, "kernelfs_verdict", None)
    if said in _RANK:
        return str(said)
    if hasattr(report, "wasxfail"):
        return {"passed": "xpassed", "skipped": "xfailed"}.get(report.outcome, "failed")
    if report.outcome == "failed" and report.when != "call":
        return "error"
    return report.outcome


def artifacts_of(report: pytest.TestReport) -> list[str]:
    """The folder with the artifacts of a test, if there is one."""
    return [str(value) for name, value in report.user_properties if name == ARTIFACTS_PROPERTY]


def without_kernel(nodeid: str, kernel: str) -> str:
    """The node id without the kernel's part of its parameters; unchanged if it has none.

    The group that xdist appends (``…[6.1]@group``) goes as well.
    """
    found = re.fullmatch(r"(?s)(.*?)\[(.*)\](@[^\]]*)?", nodeid)
    if found is None:
        return nodeid
    base, parameters = found[1], found[2]
    escaped = re.escape(kernel)
    rest, count = re.subn(rf"^{escaped}(-|$)|-{escaped}(?=-|$)", "", parameters, count=1)
    if not count:
        return nodeid
    return f"{base}[{rest}]" if rest else base


def _combine(old: Cell | None, new: Cell) -> Cell:
    if old is None:
        return new
    times = [time for time in (old.worst, new.worst) if time is not None]
    verdict = min(old.verdict, new.verdict, key=lambda verdict: _RANK[verdict])
    return Cell(verdict, max(times, default=None))


def _worst_time(properties: Iterable[Sequence[Any]]) -> float | None:
    """The longest of all measured times; other quantities (bytes, counts) are left to the full reports."""
    times = [
        float(value["max"])
        for name, value in properties
        if name == MEASUREMENT_PROPERTY
        and isinstance(value, Mapping)
        and value.get("unit") == "s"
        and value.get("max") is not None
    ]
    return max(times, default=None)
