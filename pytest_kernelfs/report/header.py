"""What a run says of itself before its first test: kernels, machines, cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_kernelfs.errors import KernelfsError

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate
    from pytest_kernelfs.run import Run


def header_lines(run: Run) -> list[str]:
    """The header; a part that cannot be told says why, and the error itself comes when a test needs it."""
    return [*_kernel_lines(run), _machine_line(run), f"kernelfs: cache {run.config.cache_root}"]


def describe(candidate: Candidate) -> str:
    """A kernel for people: release and source."""
    return f"{candidate.release} ({candidate.source})"


def legend(run: Run) -> dict[str, str]:
    """Kernel id -> what it is, in the order of the run; empty if the kernels are not known here."""
    try:
        return {name: describe(candidate) for name, candidate in run.ids.items()}
    except KernelfsError:
        return {}


def _kernel_lines(run: Run) -> list[str]:
    try:
        ids = run.ids
    except KernelfsError as error:
        return [f"kernelfs: no kernel: {error}"]
    why = _why(run)
    lines = [f"kernelfs: kernel {name}: {describe(candidate)}{why}" for name, candidate in ids.items()]
    return [*lines, *(f"kernelfs: {note}" for note in run.resolver.notes)]


def _why(run: Run) -> str:
    """Why this kernel, if the user did not say, and it is not what the machines run anyway."""
    if run.config.specs or _runs_already(run):
        return ""
    return ", which this host's release installs: no --kernel was given"


def _machine_line(run: Run) -> str:
    config = run.config
    try:
        provider, isolation = run.provider.describe(), run.isolation
        size = "" if _runs_already(run) else f", memory {config.memory >> 20}M, cpus {config.cpus}"
    except KernelfsError as error:
        return f"kernelfs: no machines: {error}"
    return f"kernelfs: {provider}; isolation {isolation}{size}"


def _runs_already(run: Run) -> bool:
    """Whether the machines are there before us, with a kernel and a size of their own."""
    return run.provider.own_kernel() is not None
