"""What the plugin's markers ask for, settled before anything boots."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import _pytest.skipping
import pytest

from pytest_kernelfs.config import ISOLATIONS, LEAST_MEMORY, MOST_CPUS
from pytest_kernelfs.errors import GuestTimeout, KernelMisbehaved, UsageError
from pytest_kernelfs.sizes import parse_size

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate
    from pytest_kernelfs.machines.machine import MachineSpec

# A panic or a hang is a failure of the kernel as well; what is not its fault is never expected.
_KNOWN_FAILURES = (AssertionError, KernelMisbehaved, GuestTimeout)
CHECKS = ("dmesg", "taint", "leaks", "fsck")


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
            item.add_marker(pytest.mark.xfail(reason=str(reason), raises=_KNOWN_FAILURES))


def check_markers(item: pytest.Item, default: MachineSpec) -> None:
    """Read all that is asked later, so that what is written wrongly is told before anything boots.

    Raises: UsageError.
    """
    isolation_of(item, "test")
    machine_spec_of(item, default)
    checks_of(item)
    allowed_in_dmesg(item)


def is_left_out(item: pytest.Item) -> bool:
    """Whether pytest leaves the test out, for its skip or skipif, or xfail(run=False).

    A condition that cannot be evaluated says no: pytest tells of it when it is that test's turn.
    """
    if item.get_closest_marker("skip") is not None:
        return True
    try:
        if _pytest.skipping.evaluate_skip_marks(item) is not None:
            return True
        expected = _pytest.skipping.evaluate_xfail_marks(item)
    except (Exception, pytest.fail.Exception):
        return False
    return expected is not None and not expected.run and not item.config.getoption("runxfail", False)


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


def machine_spec_of(item: pytest.Item, default: MachineSpec) -> MachineSpec:
    """The machine that the ``vm`` markers ask for; of each setting the nearest marker's counts.

    Raises: UsageError.
    """
    asked: dict[str, Any] = {}
    for mark in item.iter_markers("vm"):
        if mark.args or set(mark.kwargs) - {"memory", "cpus", "boot_parameters"}:
            raise UsageError(f'{item.nodeid}: write vm(memory="2G", cpus=4, boot_parameters="quiet")')
        asked = {**mark.kwargs, **asked}
    return replace(default, **{name: _MACHINE_SETTINGS[name](item, value) for name, value in asked.items()})


def _memory(item: pytest.Item, value: Any) -> int:
    size = parse_size(value, f"{item.nodeid}: the marker vm, memory")
    if size < LEAST_MEMORY:
        raise UsageError(
            f"{item.nodeid}: the marker vm, memory: {value} is too little, give at least "
            f"{LEAST_MEMORY >> 20}M"
        )
    return size


def _cpus(item: pytest.Item, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_CPUS:
        raise UsageError(f"{item.nodeid}: the marker vm, cpus: {value!r} is no number from 1 to {MOST_CPUS}")
    return value


def _boot_parameters(item: pytest.Item, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise UsageError(f"{item.nodeid}: the marker vm, boot_parameters: {value!r} is no line of text")
    return value


_MACHINE_SETTINGS: dict[str, Callable[[pytest.Item, Any], Any]] = {
    "memory": _memory,
    "cpus": _cpus,
    "boot_parameters": _boot_parameters,
}


def checks_of(item: pytest.Item) -> frozenset[str]:
    """The checks after the test that are on for it: all of CHECKS that no marker switches off.

    Raises: UsageError.
    """
    chosen: dict[str, Any] = {}
    for mark in item.iter_markers("checks"):
        if (
            mark.args
            or set(mark.kwargs) - set(CHECKS)
            or not all(isinstance(value, bool) for value in mark.kwargs.values())
        ):
            raise UsageError(f"{item.nodeid}: write checks(leaks=False), with names of {', '.join(CHECKS)}")
        chosen = {**mark.kwargs, **chosen}
    return frozenset(name for name in CHECKS if chosen.get(name, True))


def allowed_in_dmesg(item: pytest.Item) -> tuple[str, ...]:
    """The patterns of the ``dmesg_allow`` markers. Raises: UsageError for one that is none."""
    patterns = [pattern for mark in item.iter_markers("dmesg_allow") for pattern in mark.args]
    for mark in item.iter_markers("dmesg_allow"):
        if not mark.args or mark.kwargs:
            raise UsageError(f'{item.nodeid}: write dmesg_allow("regular expression", ...)')
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UsageError(f"{item.nodeid}: the marker dmesg_allow: {pattern!r}: {error}") from None
    return tuple(patterns)
