"""The checks that are on by default: judged after the test, when all that it made is gone again."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from pytest_kernelfs import news
from pytest_kernelfs.assertions.clean import describe_leaks, describe_log, describe_taint
from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, KernelfsWarning, KernelMisbehaved, warn
from pytest_kernelfs.probes.review import PATIENCE_S, Review, review

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_kernelfs.resources.stack import Resources


def conclude(resources: Resources, allowed: Sequence[str]) -> list[str]:
    """Take down what the test made, then look what is wrong: what that showed, and what the checks see.

    ``allowed`` are regular expressions for lines of the kernel's log.

    What makes a check worth less is a warning where all else is well, and told with the findings where not:
    a run that takes warnings for errors takes down and judges all the same before.

    Raises: KernelMisbehaved or GuestTimeout, with all that was found, if the kernel fails meanwhile or has
    failed since the machine was called last; InfrastructureError if something will not be taken down and
    nothing shows that the kernel is to blame.
    """
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", KernelfsWarning)
        found = _concluded(resources, allowed)
    for doubt in doubts:
        if found and issubclass(doubt.category, KernelfsWarning):
            found.append(str(doubt.message))
        else:
            warnings.warn_explicit(doubt.message, doubt.category, doubt.filename, doubt.lineno)
    return found


def _concluded(resources: Resources, allowed: Sequence[str]) -> list[str]:
    problem = None
    try:
        resources.close()
    except InfrastructureError as error:
        problem = error
    except (KernelMisbehaved, GuestTimeout) as error:
        raise type(error)("\n".join([str(error), *resources.findings])) from None
    # What was not taken down is there still, and no leak of the test.
    checks = resources.checks - {"leaks"} if problem else resources.checks
    found = [*resources.findings, *_look(resources, checks, allowed)]
    if problem and not found:
        raise problem
    return [*found, str(problem)] if problem else found


def _look(resources: Resources, checks: frozenset[str], allowed: Sequence[str]) -> list[str]:
    vm = resources.vm
    vm.machine.check_alive()
    if not checks & {"dmesg", "taint", "leaks"} or not vm.usable:
        return []
    patience = 0.0 if resources.findings else PATIENCE_S
    seen = review(vm, vm.machine.log_start, allowed=allowed, leaks="leaks" in checks, patience=patience)
    if "dmesg" in checks and seen.lost:
        _warn_of_lost(seen.lost)
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


def fail(found: Sequence[str]) -> None:
    """Raises: KernelMisbehaved with all findings, if there are any."""
    if found:
        raise KernelMisbehaved("after the test, " + "\n".join(found))


def _tell_of_early(seen: Review, kernel: str) -> None:
    """Not the test's doing, and yet something that whoever looks after the machines should know."""
    lines = "; ".join(str(story[0]) for story in seen.early)
    news.tell(f"kernel {kernel} logged trouble as its machine started, before the test began: {lines}")


def _warn_of_lost(count: int) -> None:
    warn(
        f"{count} records of the kernel's log were overwritten before they could be checked; boot with a "
        'larger one: vm(boot_parameters="log_buf_len=4M")'
    )
