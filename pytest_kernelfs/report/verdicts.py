"""Four verdicts, never mixed: which exception means that the kernel failed, and which that we did."""

from __future__ import annotations

import contextlib
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
    """Attach the verdict to a report of a phase that ended in an error of ours.

    What the provider cannot do skips the test, unless the run demands (``require``) that needs be met.
    """
    if not isinstance(error, KernelfsError) or not report.failed:
        return
    if isinstance(error, Unsupported) and not require:
        report.outcome = "skipped"
        path, line, _ = report.location
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {error}")
        return
    if isinstance(error, _ERRORS):
        report.kernelfs_verdict = "error"  # type: ignore[attr-defined]
    elif isinstance(error, _FAILURES) or report.when == "call":
        report.kernelfs_verdict = "failed"  # type: ignore[attr-defined]
    if not _passes_through_users_code(error):
        report.longrepr = str(error)


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


def _passes_through_users_code(error: BaseException) -> bool:
    """Whether a traceback could show where the user's code called ours.

    What comes after our own frames is ours, or a library's that we use.
    """
    trace = error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if _is_ours(path):
            return False
        if not any(path.is_relative_to(folder) for folder in _PYTEST):
            return True
        trace = trace.tb_next
    return False


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(_PACKAGE)
