"""The real mirror of this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels import Candidate, KernelSettings, Resolver
from pytest_kernelfs.kernels.download import UnreachableError

SPECS = ["5.10", "6.1", "6.12", "7.2"]


@pytest.mark.network
def test_debian_as_it_is_today(tmp_path: Path) -> None:
    resolver = Resolver(KernelSettings(Cache(tmp_path)))
    candidates = _resolve_or_skip(resolver)
    assert [f"{c.version.major}.{c.version.minor}" for c in candidates] == SPECS
    assert all(candidate.release.endswith("-cloud-amd64") for candidate in candidates)
    kernel = resolver.fetch(candidates[1])
    assert kernel.boot_image.stat().st_size > 5_000_000
    assert kernel.config_option("OVERLAY_FS") in ("y", "m")
    assert kernel.modules is not None
    assert (kernel.modules / "modules.dep").stat().st_size > 10_000


def _resolve_or_skip(resolver: Resolver) -> list[Candidate]:
    try:
        return resolver.resolve(SPECS)
    except (UsageError, UnreachableError) as error:
        if isinstance(error, UnreachableError) or "no Debian mirror" in str(error):
            pytest.skip(str(error))
        raise
