"""The checks that are on by default: judged after the test, when all that it made is gone again."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from pytest_kernelfs import news
from pytest_kernelfs.assertions.clean import describe_leaks, describe_log, describe_taint, warn_of_lost
from pytest_kernelfs.errors import (
    InfrastructureError,
    KernelfsError,
    KernelfsWarning,
    KernelMisbehaved,
)
from pytest_kernelfs.probes.review import PATIENCE_S, Review, review

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_kernelfs.resources.stack import Resources


def conclude(resources: Resources, allowed: Sequence[str]) -> list[str]:
    """Take down what the test made, then look what is wrong: what that showed, and what the checks see.

    ``allowed`` are regular expressions for lines of the kernel's log.

    What makes a check worth less is a warning where all else is well, and told with what is not where that
    is: a run that takes warnings for errors takes down and judges all the same before.

    Raises: KernelMisbehaved or GuestTimeout, with all that was found, if the kernel fails meanwhile or has
    failed since the machine was called last; InfrastructureError if something will not be taken down and
    nothing shows that the kernel is to blame.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", KernelfsWarning)
        found, failure = _concluded(resources, allowed)
    doubts = [doubt for doubt in heard if issubclass(doubt.category, KernelfsWarning)]
    others = [doubt for doubt in heard if doubt not in doubts]
    if failure is not None:
        _warn_again(others)
        if not found and not doubts:
            raise failure
        # Another one: the machine tells everybody who calls it of the one that it has.
        raise type(failure)("\n".join([str(failure), *found, *_texts(doubts)])) from None
    _warn_again(others if found else heard)
    return [*found, *_texts(doubts)] if found else []


def _concluded(resources: Resources, allowed: Sequence[str]) -> tuple[list[str], KernelfsError | None]:
    """What is wrong, and the error that keeps more from being found."""
    problem = None
    try:
        resources.close()
    except InfrastructureError as error:
        problem = error
    except KernelfsError as error:
        return [*resources.findings], error
    found = [*resources.findings]
    # What was not taken down is there still, and no leak of the test.
    checks = resources.checks - {"leaks"} if problem else resources.checks
    left = [str(problem)] if problem else []
    try:
        found += _look(resources, checks, allowed)
    except KernelfsError as error:
        return [*found, *left], error
    return ([*found, *left], None) if found else ([], problem)


def _texts(doubts: Sequence[warnings.WarningMessage]) -> list[str]:
    return [str(doubt.message) for doubt in doubts]


def _warn_again(heard: Sequence[warnings.WarningMessage]) -> None:
    for one in heard:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _look(resources: Resources, checks: frozenset[str], allowed: Sequence[str]) -> list[str]:
    vm = resources.vm
    vm.machine.check_alive()
    if not checks & {"dmesg", "taint", "leaks"} or not vm.usable:
        return []
    patience = 0.0 if resources.findings else PATIENCE_S
    seen = review(vm, vm.machine.log_start, allowed=allowed, leaks="leaks" in checks, patience=patience)
    if "dmesg" in checks:
        warn_of_lost(seen, vm.kernel)
    if "dmesg" in checks and seen.early:
        _tell_of_early(seen, str(vm.kernel.version))
    return _described(seen, checks, str(vm.kernel.version))


def _described(seen: Review, checks: frozenset[str], kernel: str) -> list[str]:
    return [
        *(describe_log(seen, kernel) if "dmesg" in checks else []),
        *(describe_taint(seen, kernel) if "taint" in checks else []),
        *(describe_leaks(seen, kernel) if "leaks" in checks else []),
    ]


def note_before_power_cut(resources: Resources, allowed: Sequence[str]) -> None:
    """Add to the resources' findings what is wrong in the log and the taint that go with the machine.

    Raises: as ``conclude``.
    """
    checks = resources.checks & {"dmesg", "taint"}
    if not checks:
        return
    vm = resources.vm
    seen = review(vm, vm.machine.log_start, allowed=allowed, leaks=False, patience=0.0)
    resources.findings += _described(seen, checks, str(vm.kernel.version))
    # Last: in a run that takes warnings for errors, it is what ends the test.
    if "dmesg" in checks:
        warn_of_lost(seen, vm.kernel)


def fail(found: Sequence[str]) -> None:
    """Raises: KernelMisbehaved with all findings, if there are any."""
    if found:
        raise KernelMisbehaved("after the test, " + "\n".join(found))


def _tell_of_early(seen: Review, kernel: str) -> None:
    """Not the test's doing, and yet something that whoever looks after the machines should know."""
    lines = "; ".join(str(story[0]) for story in seen.early)
    news.tell(f"kernel {kernel} logged trouble as its machine started, before the test began: {lines}")
