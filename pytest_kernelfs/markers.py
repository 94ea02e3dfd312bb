"""What the markers kernel, kernel_xfail and isolation ask for, settled before anything boots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_kernelfs.config import ISOLATIONS
from pytest_kernelfs.errors import UsageError

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate


def apply_markers(item: pytest.Item, candidate: Candidate) -> None:
    """Turn the item's kernel markers into pytest's own skip and xfail, for this kernel.

    Raises: UsageError for a marker that is not written as it must be.
    """
    for mark in item.iter_markers("kernel"):
        constraint = _constraint(item, mark)
        if not candidate.version.matches(constraint):
            item.add_marker(
                pytest.mark.skip(reason=f"needs a kernel {constraint}, this is {candidate.version}")
            )
    for mark in item.iter_markers("kernel_xfail"):
        where = _constraint(item, mark)
        reason = mark.kwargs.get("reason")
        if not reason or set(mark.kwargs) - {"reason"}:
            raise UsageError(f'{item.nodeid}: write kernel_xfail("<5.10", reason="why it fails there")')
        if not where or candidate.version.matches(where):
            item.add_marker(pytest.mark.xfail(reason=str(reason), raises=AssertionError))


def isolation_of(item: pytest.Item, default: str) -> str:
    """The isolation that the nearest marker asks for, else the default. Raises: UsageError."""
    mark = item.get_closest_marker("isolation")
    if mark is None:
        return default
    scope: Any = mark.args[0] if len(mark.args) == 1 else None
    if scope not in ISOLATIONS:
        raise UsageError(f"{item.nodeid}: the marker isolation takes one of {', '.join(ISOLATIONS)}")
    return str(scope)


def _constraint(item: pytest.Item, mark: pytest.Mark) -> str:
    if len(mark.args) != 1 or not isinstance(mark.args[0], str):
        raise UsageError(f'{item.nodeid}: write {mark.name}(">=5.10,<6.0"), with one constraint')
    return mark.args[0]
