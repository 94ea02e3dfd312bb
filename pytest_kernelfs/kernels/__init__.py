"""Which kernel: from what a user types to an image, its modules and its config on this host."""

from pytest_kernelfs.kernels.kernel import Candidate, Kernel, Package, unique_ids
from pytest_kernelfs.kernels.own import own_candidate
from pytest_kernelfs.kernels.resolver import Resolver
from pytest_kernelfs.kernels.settings import KernelSettings, Progress
from pytest_kernelfs.kernels.spec import KernelSpec, parse_specs
from pytest_kernelfs.kernels.version import KernelVersion, parse_constraint

__all__ = [
    "Candidate",
    "Kernel",
    "KernelSettings",
    "KernelSpec",
    "KernelVersion",
    "Package",
    "Progress",
    "Resolver",
    "own_candidate",
    "parse_constraint",
    "parse_specs",
    "unique_ids",
]
