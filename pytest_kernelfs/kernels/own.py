"""Kernels that machines run already: checked against what was asked for, never fetched."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels.kernel import Candidate, Kernel
from pytest_kernelfs.kernels.spec import KernelSpec, parse_specs


def own_candidate(kernel: Kernel, specs: Sequence[str], provider: str) -> Candidate:
    """The kernel that machines of ``provider`` run, as a candidate.

    Raises: UsageError if one of ``specs`` is malformed, or asks for another kernel.
    """
    for spec in parse_specs(specs):
        if not _means(spec, kernel):
            raise UsageError(
                f"--kernel {spec.text}: the provider {provider} boots no kernels, and its machine runs "
                f"{kernel.release} (version {kernel.version}); leave --kernel out, or name that one"
            )
    return Candidate(kernel.release, kernel.version, kernel.release, kernel.source, kernel.checksum)


def _means(spec: KernelSpec, kernel: Kernel) -> bool:
    if spec.kind == "series":
        return spec.value == f"{kernel.version.major}.{kernel.version.minor}"
    if spec.kind == "version":
        return spec.value == str(kernel.version)
    return spec.kind == "release" and spec.value == kernel.release
