"""Four verdicts, never mixed: which exception means that the kernel failed, and which that we did."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import _pytest
import pluggy
import pytest

from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    NeedUnmet,
    ProviderUnavailable,
    Unsupported,
    UsageError,
)

_PACKAGE = Path(__file__).resolve().parent.parent
_PYTEST = [Path(str(module.__file__)).resolve().parent for module in (_pytest, pluggy, contextlib)]
_ERRORS = (InfrastructureError, NeedUnmet, ProviderUnavailable, Unsupported, UsageError)
_FAILURES = (KernelMisbehaved, GuestTimeout)


def hide_our_frames(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Leave our own frames out of the traceback of an error that says all in its message.

    pytest hides a frame by a name it finds in its locals or in its module, and forgets a traceback
    that was filtered beforehand: so the name is put into our modules, the first time it matters.
    """
    if not isinstance(excinfo.value, KernelfsError):
        return
    for entry in excinfo.traceback:
        if _is_ours(Path(str(entry.path))):
            entry.frame.f_globals.setdefault("__tracebackhide__", _says_all)


def _says_all(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    return isinstance(excinfo.value, KernelfsError)


def judge(report: pytest.TestReport, error: BaseException, *, require: bool) -> None:
    """Attach the verdict to a report of a phase that ended in an error of ours, or in several.

    What the provider cannot do skips the test, unless the run demands (``require``) that needs be met.
    Where several fixtures fail as they are taken down, one failure of the kernel is enough to fail the test.
    """
    parts = parts_of(error)
    ours = [part for part in parts if isinstance(part, KernelfsError)]
    if not ours or not report.failed:
        return
    if all(isinstance(part, Unsupported) for part in parts) and not require:
        report.outcome = "skipped"
        path, line, _ = report.location
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {'; '.join(map(str, ours))}")
        return
    verdict = _verdict(parts, str(report.when))
    if verdict:
        report.kernelfs_verdict = verdict  # type: ignore[attr-defined]
    if len(parts) > 1 and len(ours) == len(parts):
        report.longrepr = "\n\n".join(_located(part) for part in ours)
    elif len(parts) == 1 and _call_in_users_code(error) is None:
        report.longrepr = str(error)


def parts_of(error: BaseException) -> list[BaseException]:
    """The error; or those that it groups, as when several fixtures fail while they are taken down."""
    grouped = getattr(error, "exceptions", None)
    if isinstance(error, KernelfsError) or not isinstance(grouped, tuple):
        return [error]
    return [part for inner in grouped for part in parts_of(inner)]


def _verdict(parts: Sequence[BaseException], phase: str) -> str:
    """What the errors mean; empty if it is for pytest to say."""
    if any(isinstance(error, _FAILURES) for error in parts):
        return "failed"
    if phase == "call" and not all(isinstance(error, _ERRORS) for error in parts):
        return "failed"  # of what the test found itself, an error of ours may be the consequence
    return "error" if any(isinstance(error, _ERRORS) for error in parts) else ""


def _located(error: KernelfsError) -> str:
    """The error's text, under the place in the user's code that led to it, if there is one."""
    place = _call_in_users_code(error)
    return f"{place}: {error}" if place else str(error)


def status(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """Category, letter and word for pytest, where they differ from what the phase alone would say."""
    if not report.failed or hasattr(report, "wasxfail"):
        return None
    verdict = getattr(report, "kernelfs_verdict", None)
    if verdict == "error" and report.when == "call":
        return "error", "E", "ERROR"
    if verdict == "failed" and report.when in ("setup", "teardown"):
        return "failed", "F", "FAILED"
    return None


def _call_in_users_code(error: BaseException) -> str | None:
    """The "path:line" in the user's code from which ours was called, if a traceback could show one.

    What comes after our own frames is ours, or a library's that we use.
    """
    place = None
    trace = error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if _is_ours(path):
            break
        if not any(path.is_relative_to(folder) for folder in _PYTEST):
            place = f"{path}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(_PACKAGE)
