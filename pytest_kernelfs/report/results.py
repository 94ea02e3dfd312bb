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
    """One test on one kernel: its verdict, and the longest time measured in it (seconds), if any was.

    ``attempts`` counts how often it ran, where pytest-rerunfailures had it run again; the last one counts.
    """

    verdict: str
    worst: float | None = None
    attempts: int = 1


class ResultTable:
    """Tests by kernels. ``kernels`` are ids known beforehand, in the order in which they are to stand."""

    def __init__(self, kernels: Iterable[str] = ()) -> None:
        self._kernels = dict.fromkeys(kernels)
        self._cells: dict[str, dict[str, Cell]] = {}
        self._repeated: Counter[tuple[str, str]] = Counter()
        self._void: set[tuple[str, str]] = set()

    def add(self, report: pytest.TestReport) -> None:
        """Take in one phase of a test; one without a kernel is passed over.

        Of a test that runs again only the last attempt counts: one begins with each set-up, and what comes
        between an attempt that failed and the next set-up is said of the one that failed.
        """
        kernel = self._kernel(report)
        if kernel is None:
            return
        test = without_kernel(report.nodeid, kernel)
        if report.when == "setup":
            self._void.discard((test, kernel))
        outcome: str = report.outcome  # those of other plugins, too
        if outcome == "rerun" and (test, kernel) not in self._void:
            self._repeated[test, kernel] += 1  # once, though call and teardown may both have failed
            self._void.add((test, kernel))
            self._cells.get(test, {}).pop(kernel, None)
        # Other plugins have outcomes of their own for what they try again, and no set-up before that.
        if (test, kernel) in self._void or outcome not in ("passed", "failed", "skipped"):
            return
        self._kernels.setdefault(kernel)
        row = self._cells.setdefault(test, {})
        verdict = verdict_of(report)
        if report.when == "setup" and verdict == "passed":
            return  # not a result yet: the run may be interrupted before the test is
        new = Cell(verdict, _worst_time(report.user_properties), self._repeated[test, kernel] + 1)
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

    def repeated(self, kernel: str) -> int:
        """How many tests have a result on that kernel that is not their first attempt's."""
        return sum(kernel in row and row[kernel].attempts > 1 for row in self._cells.values())

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


def forget_attempt(item: pytest.Item) -> None:
    """Before a test runs (again): what an earlier attempt measured and left is not this one's."""
    item.user_properties[:] = [
        (name, value)
        for name, value in item.user_properties
        if name not in (MEASUREMENT_PROPERTY, ARTIFACTS_PROPERTY)
    ]


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
    return Cell(verdict, max(times, default=None), new.attempts)


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
