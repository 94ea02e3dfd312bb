"""A clean kernel log, no new taint, nothing left behind."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.probes.review import PATIENCE_S, Review, review


def dmesg_clean(vm: VM, *, since: int | None = None, allow: Sequence[str] = ()) -> None:
    """Demand that the kernel has logged nothing that tells of a failure, and was not tainted.

    ``since`` is a record number, as ``VM.mark_dmesg`` gives it: by default the start of the machine's own
    log. ``allow`` holds regular expressions for lines that are to be expected.

    Raises: AssertionError with the lines and their traces.
    """
    __tracebackhide__ = True
    start = vm.machine.log_start if since is None else since
    found = review(vm, start, allowed=allow, leaks=False)
    told = [*describe_log(found, str(vm.kernel.version)), *describe_taint(found, str(vm.kernel.version))]
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


def describe_log(found: Review, kernel: str) -> list[str]:
    """What the kernel logged, as the text of one finding, or nothing."""
    lines = [line for story in found.log for line in (str(story[0]), *(f"    {rest}" for rest in story[1:]))]
    count = len(found.log)
    noun = "line" if count == 1 else "lines"
    return _finding(f"the kernel logged {count} {noun} of trouble (kernel {kernel})", lines)


def describe_taint(found: Review, kernel: str) -> list[str]:
    """What taints the kernel since the test began, as the text of one finding, or nothing."""
    return _finding(f"the kernel is tainted since this test (kernel {kernel})", found.trouble)


def describe_leaks(found: Review, kernel: str) -> list[str]:
    """What was left behind, as the text of one finding, or nothing."""
    count = len(found.leaks)
    noun = "thing was" if count == 1 else "things were"
    return _finding(f"{count} {noun} left behind that the test began without (kernel {kernel})", found.leaks)


def _finding(headline: str, lines: Sequence[str]) -> list[str]:
    return ["\n".join([headline, *(f"  {line}" for line in lines)])] if lines else []
