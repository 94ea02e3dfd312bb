"""What kernel runs on a machine: found out there, once, before any test."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.kernels.version import KernelVersion
from pytest_kernelfs.machines.tenant.access import Access
from pytest_kernelfs.machines.tenant.connection import Connection

# uname -v of Debian's kernels ends in "Debian 6.1.176-1 (2026-10-03)"; its release says 6.1.0-50-amd64.
_DEBIAN = re.compile(r"\bDebian (\d[\w.~+]*)-")
_LEADING = re.compile(r"\d+(\.\d+)*(-rc\d+)?")
KIND = "running-kernels"


def running_kernel(access: Access, cache: Cache, timeout: float = 60.0) -> Kernel:
    """The kernel of a machine, as it tells of itself; its config is kept in the cache.

    Raises: Unreachable, InfrastructureError.
    """
    connection = Connection(access, {"only": "facts"}, timeout)
    facts = connection.facts
    connection.close(timeout)
    return kernel_of(facts, access, cache)


def kernel_of(facts: dict[str, Any], access: Access, cache: Cache) -> Kernel:
    """The kernel that these facts tell of; see ``guest.tenant_facts``."""
    config = facts["config"]
    identity = "\0".join([access.provider, access.label, facts["release"], facts["build"], config])
    checksum = hashlib.sha256(identity.encode()).hexdigest()

    def fill(folder: Path) -> None:
        (folder / "config").write_text(config)

    path = cache.entry(KIND, checksum[:32], fill) / "config" if config else None
    return Kernel(
        version=KernelVersion.parse(_version(facts["release"], facts["build"])),
        release=facts["release"],
        source=f"{access.provider}: {access.label}",
        checksum=checksum,
        image=None,
        config=path,
    )


def _version(release: str, build: str) -> str:
    """The full version: Debian's release says less than the name of its build does."""
    debian = _DEBIAN.search(build)
    if debian:
        return debian[1].replace("~", "-")
    leading = _LEADING.match(release)
    return leading[0] if leading else release
