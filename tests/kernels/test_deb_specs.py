"""Kernels given as .deb files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.kernels import Kernel

from .conftest import MakeResolver
from .standin import Deb, bzimage, deb, module, old_kernel, split_kernel

UBUNTU = "4.14.60-041460-generic"


def write(folder: Path, debs: Sequence[Deb]) -> dict[str, Path]:
    """The packages as files; their paths by package name."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for package in debs:
        path = folder / Path(package.file_name).name
        path.write_bytes(package.content)
        paths[package.name] = path
    return paths


def fetch(make_resolver: MakeResolver, spec: str) -> Kernel:
    resolver = make_resolver()
    return resolver.fetch(resolver.resolve([spec])[0])


def test_one_package_may_hold_all(make_resolver: MakeResolver, tmp_path: Path) -> None:
    (path,) = write(tmp_path / "d", old_kernel("6.1.0-50-amd64", "6.1.176-1")).values()
    kernel = fetch(make_resolver, str(path))
    assert (kernel.id, kernel.release) == ("6.1.176", "6.1.0-50-amd64")
    assert kernel.source == f"deb {path.name}"
    assert kernel.modules is not None
    assert (kernel.modules / "modules.dep").is_file()


@pytest.mark.parametrize("named", ["linux-binary", "linux-image"])
def test_the_other_packages_are_found_beside_it(
    make_resolver: MakeResolver, tmp_path: Path, named: str
) -> None:
    release = "7.2.12+deb13-cloud-amd64"
    paths = write(tmp_path / "d", split_kernel(release, "7.2.12-1"))
    write(tmp_path / "d", split_kernel("7.2.11+deb13-cloud-amd64", "7.2.11-1"))
    kernel = fetch(make_resolver, str(paths[f"{named}-{release}"]))
    assert kernel.boot_image.read_bytes() == bzimage(release)
    assert kernel.config_option("XFS_FS") == "m"
    assert kernel.modules is not None
    assert (kernel.modules / "kernel/fs/xfs/xfs.ko.xz").is_file()


def test_packages_of_another_build_are_not_mixed_in(make_resolver: MakeResolver, tmp_path: Path) -> None:
    release = "7.2.12+deb13-cloud-amd64"
    paths = write(tmp_path / "d", split_kernel(release, "7.2.12-1", without=("modules", "base")))
    write(tmp_path / "d", split_kernel(release, "7.2.12-2", without=("binary", "image")))
    assert fetch(make_resolver, str(paths[f"linux-binary-{release}"])).modules is None


def test_packages_can_be_joined(make_resolver: MakeResolver, tmp_path: Path) -> None:
    image = deb(
        f"linux-image-unsigned-{UBUNTU}", "4.14.60-041460.1", {f"./boot/vmlinuz-{UBUNTU}": bzimage(UBUNTU)}
    )
    files = {
        f"./lib/modules/{UBUNTU}/modules.order": b"",
        f"./lib/modules/{UBUNTU}/kernel/fs/xfs.ko": module("xfs"),
        f"./boot/config-{UBUNTU}": b"CONFIG_XFS_FS=m\n",
    }
    modules = deb(f"linux-modules-{UBUNTU}", "4.14.60-041460.1", files)
    one = write(tmp_path / "a", [image])[image.name]
    other = write(tmp_path / "b", [modules])[modules.name]
    for spec in (f"{one}+{other}", f"{other}+{one}"):
        kernel = fetch(make_resolver, spec)
        assert (kernel.id, kernel.release) == ("4.14.60", UBUNTU)
        assert kernel.modules is not None
        assert kernel.config_option("XFS_FS") == "m"


def test_without_an_image_it_is_no_kernel(make_resolver: MakeResolver, tmp_path: Path) -> None:
    (path,) = write(tmp_path / "d", [deb("zsh", "5.9-1", {"./bin/zsh": b""})]).values()
    with pytest.raises(UsageError, match="has no package with a kernel image, only zsh; add the linux-image"):
        make_resolver().resolve([str(path)])


@pytest.mark.parametrize("left", [0, 4, 8, 40, 100, 300, -2, -100])
@pytest.mark.parametrize("suffix", [".xz", ".gz", ""])
def test_a_truncated_package_is_named(
    make_resolver: MakeResolver, tmp_path: Path, left: int, suffix: str
) -> None:
    (path,) = write(tmp_path / "d", old_kernel("6.1.0-50-amd64", "6.1.176-1", suffix=suffix)).values()
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        InfrastructureError, match=r"is no intact \.deb file .*; download or build it again"
    ) as caught:
        fetch(make_resolver, str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corrupt_package_is_named(make_resolver: MakeResolver, tmp_path: Path) -> None:
    (path,) = write(tmp_path / "d", old_kernel("6.1.0-50-amd64", "6.1.176-1")).values()
    content = bytearray(path.read_bytes())
    content[-60:-40] = b"?" * 20
    path.write_bytes(content)
    with pytest.raises(InfrastructureError, match=r"is no intact \.deb file"):
        fetch(make_resolver, str(path))


def test_a_changed_package_is_another_kernel(make_resolver: MakeResolver, tmp_path: Path) -> None:
    (path,) = write(tmp_path / "d", old_kernel("6.1.0-50-amd64", "6.1.176-1")).values()
    first = make_resolver().resolve([str(path)])
    write(tmp_path / "d", old_kernel("6.1.0-50-amd64", "6.1.176-1", suffix=".gz"))
    assert make_resolver().resolve([str(path)])[0].checksum != first[0].checksum
