"""A clean kernel log, no new taint, nothing left behind."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_kernelfs.errors import UsageError, warn
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.vm import VM, check_record
from pytest_kernelfs.probes.review import PATIENCE_S, Review, review

_ALLOW_LINES = (
    'if a line is to be expected: @pytest.mark.dmesg_allow("regular expression"), or allow=("…",) of '
    "assert_dmesg_clean; for the check after the test to look at none: @pytest.mark.checks(dmesg=False)"
)
_ALLOW_TAINT = "if it is to be expected: @pytest.mark.checks(taint=False)"
_ALLOW_LEAKS = "if it is left there on purpose: @pytest.mark.checks(leaks=False)"


def dmesg_clean(
    vm: VM,
    *,
    since: int | None = None,
    allow: Sequence[str] = (),
    also: Sequence[str] = (),
    allowed: Sequence[str] = (),
    taint: bool = True,
) -> None:
    """Demand that the kernel has logged nothing that tells of a failure, and was not tainted.

    ``since`` is a record number, as ``VM.mark_dmesg`` gives it: by default the start of the machine's own
    log. ``allow`` holds regular expressions for lines that are to be expected, ``also`` for lines that count
    as trouble beside those that always do. ``allowed`` is what is allowed by the test's markers, ``taint``
    whether they let the taint be judged. With ``since`` it is not: nobody knows how long it has been there.

    A log that lost records before they could be read is a KernelfsWarning.

    Raises: AssertionError with the lines and their traces; UsageError for a pattern that is none.
    """
    __tracebackhide__ = True
    _check_patterns("allow", allow)
    _check_patterns("also", also)
    start = vm.machine.log_start if since is None else check_record("assert_dmesg_clean", since)
    found = review(vm, start, allowed=(*allowed, *allow), also=also, leaks=False)
    warn_of_lost(found, vm.kernel)
    told = describe_log(found, str(vm.kernel.version))
    if taint and since is None:
        told += describe_taint(found, str(vm.kernel.version))
    if told:
        raise AssertionError("\n".join(told))


def no_leaks(vm: VM, *, within: float = PATIENCE_S) -> None:
    """Demand that the test left nothing in the kernel that was not there when it began.

    What is on its way out has ``within`` seconds. Raises: AssertionError, naming each thing.
    """
    __tracebackhide__ = True
    found = review(vm, vm.machine.log_start, patience=within)
    told = describe_leaks(found, str(vm.kernel.version))
    if told:
        raise AssertionError("\n".join(told))


def warn_of_lost(found: Review, kernel: Kernel) -> None:
    """A KernelfsWarning if the log lost records, which may have told of anything, and how it keeps more."""
    if not found.lost:
        return
    larger = (
        'boot with a larger one: vm(boot_parameters="log_buf_len=4M")'
        if kernel.image is not None
        else "it is larger with log_buf_len=4M on that machine's own kernel command line (in the settings of "
        "its boot loader)"
    )
    warn(f"{found.lost} records of the kernel's log were overwritten before they could be checked; {larger}")


def describe_log(found: Review, kernel: str) -> list[str]:
    """What the kernel logged, as the text of one finding, or nothing."""
    lines = [line for story in found.log for line in (str(story[0]), *(f"    {rest}" for rest in story[1:]))]
    count = len(found.log)
    noun = "line" if count == 1 else "lines"
    return _finding(f"the kernel logged {count} {noun} of trouble (kernel {kernel})", lines, _ALLOW_LINES)


def describe_taint(found: Review, kernel: str) -> list[str]:
    """What taints the kernel since the test began, as the text of one finding, or nothing."""
    headline = f"the kernel is tainted since this test (kernel {kernel})"
    lines = found.trouble
    if lines and found.last:
        lines += ["the log tells of nothing that is not allowed; its last lines:", *map(str, found.last)]
    return _finding(headline, lines, _ALLOW_TAINT)


def describe_leaks(found: Review, kernel: str) -> list[str]:
    """What was left behind, as the text of one finding, or nothing."""
    count = len(found.leaks)
    noun = "thing was" if count == 1 else "things were"
    headline = f"{count} {noun} left behind that the test began without (kernel {kernel})"
    return _finding(headline, found.leaks, _ALLOW_LEAKS)


def _finding(headline: str, lines: Sequence[str], advice: str) -> list[str]:
    return ["\n".join([headline, *(f"  {line}" for line in lines), f"  ({advice})"])] if lines else []


def _check_patterns(name: str, patterns: Sequence[str]) -> None:
    if isinstance(patterns, str):
        raise UsageError(f"assert_dmesg_clean: {name} is a list of regular expressions: [{patterns!r}]")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UsageError(f"assert_dmesg_clean: {name}: {pattern!r}: {error}") from None
