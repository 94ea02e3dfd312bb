"""The kernel of a machine, from what that tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines.tenant.access import Access
from pytest_kernelfs.machines.tenant.facts import kernel_of

ACCESS = Access("ssh", "lab-7")


def facts(release: str = "6.18.44", build: str = "#1 SMP", config: str = "") -> dict[str, str]:
    return {"release": release, "build": build, "config": config}


@pytest.mark.parametrize(
    ("release", "build", "version"),
    [
        ("6.1.0-50-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-10-03)", "6.1.176"),
        ("7.3-amd64", "#1 SMP Debian 7.3~rc2-1~exp1 (2026-10-03)", "7.3-rc2"),
        ("6.18.44-fc-v595", "#1 SMP @0", "6.18.44"),
        ("6.11.0-9-generic", "#9-Ubuntu SMP", "6.11.0"),
        ("5.10.0-rc3+", "#2", "5.10-rc3"),
    ],
)
def test_the_version_is_as_full_as_it_tells(tmp_path: Path, release: str, build: str, version: str) -> None:
    kernel = kernel_of(facts(release, build), ACCESS, Cache(tmp_path))
    assert str(kernel.version) == version
    assert (kernel.release, kernel.image, kernel.config) == (release, None, None)
    assert kernel.source == "ssh: lab-7"


def test_its_config_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    kernel = kernel_of(facts(config="CONFIG_XFS_FS=m\n"), ACCESS, cache)
    assert kernel.config_option("XFS_FS") == "m"
    again = kernel_of(facts(config="CONFIG_XFS_FS=m\n"), ACCESS, cache)
    assert again == kernel
    others = [
        kernel_of(facts(config="CONFIG_XFS_FS=y\n"), ACCESS, cache),
        kernel_of(facts(build="#2", config="CONFIG_XFS_FS=m\n"), ACCESS, cache),
        kernel_of(facts(config="CONFIG_XFS_FS=m\n"), Access("ssh", "lab-8"), cache),
    ]
    assert len({kernel.checksum, *(other.checksum for other in others)}) == 4
