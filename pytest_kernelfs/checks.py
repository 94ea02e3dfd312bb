"""The checks that are on by default: judged after the test, when all that it made is gone again."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from pytest_kernelfs.assertions.clean import describe_leaks, describe_log, describe_taint
from pytest_kernelfs.errors import KernelfsWarning, KernelMisbehaved
from pytest_kernelfs.probes.review import PATIENCE_S, review

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_kernelfs.resources.stack import Resources


def findings(resources: Resources, allowed: Sequence[str]) -> list[str]:
    """What is wrong after a test: what its resources found when they were taken down, and what we see.

    ``allowed`` are regular expressions for lines of the kernel's log. Raises: KernelMisbehaved or
    GuestTimeout if the kernel fails meanwhile.
    """
    found = list(resources.findings)
    checks = resources.checks & {"dmesg", "taint", "leaks"}
    if not checks or not resources.vm.usable:
        return found
    since = resources.vm.machine.log_start
    seen = review(
        resources.vm, since, allowed=allowed, leaks="leaks" in checks, patience=0.0 if found else PATIENCE_S
    )
    kernel = str(resources.vm.kernel.version)
    if "dmesg" in checks:
        found += describe_log(seen, kernel)
        if seen.lost:
            _warn_of_lost(seen.lost)
    if "taint" in checks:
        found += describe_taint(seen, kernel)
    if "leaks" in checks:
        found += describe_leaks(seen, kernel)
    return found


def note_before_power_cut(resources: Resources, allowed: Sequence[str]) -> None:
    """Add to the resources' findings what is wrong in the log and the taint that go with the machine.

    Raises: as ``findings``.
    """
    checks = resources.checks & {"dmesg", "taint"}
    if not checks:
        return
    vm = resources.vm
    seen = review(vm, vm.machine.log_start, allowed=allowed, leaks=False, patience=0.0)
    kernel = str(vm.kernel.version)
    if "dmesg" in checks:
        resources.findings += describe_log(seen, kernel)
    if "taint" in checks:
        resources.findings += describe_taint(seen, kernel)


def fail(found: Sequence[str]) -> None:
    """Raises: KernelMisbehaved with all findings, if there are any."""
    if found:
        raise KernelMisbehaved("after the test, " + "\n".join(found))


def _warn_of_lost(count: int) -> None:
    warnings.warn(
        KernelfsWarning(
            f"{count} records of the kernel's log were overwritten before they could be checked; boot with a "
            'larger one: vm(boot_parameters="log_buf_len=4M")'
        ),
        stacklevel=2,
    )
