"""Kernels of the user's own: an image, a built tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.kernels import Kernel, KernelVersion

from .conftest import MakeResolver
from .standin import Mirror, bzimage, module

RELEASE = "6.11.3-mine"


@pytest.fixture(autouse=True)
def _no_network(mirror: Mirror) -> None:
    """A mirror with nothing on it: local kernels must not ask for any."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "here" / "bzImage"
    path.parent.mkdir()
    path.write_bytes(bzimage(RELEASE))
    return path


def fetch(make_resolver: MakeResolver, spec: str) -> Kernel:
    resolver = make_resolver()
    return resolver.fetch(resolver.resolve([spec])[0])


def install_modules(root: Path, *, depmod: bool = False) -> Path:
    """As ``make modules_install`` leaves them; returns lib/modules/RELEASE."""
    folder = root / "lib" / "modules" / RELEASE
    (folder / "kernel" / "fs").mkdir(parents=True)
    (folder / "kernel" / "fs" / "xfs.ko").write_bytes(module("xfs"))
    (folder / "modules.order").write_text("kernel/fs/xfs.ko\n")
    (folder / "modules.builtin").touch()
    (folder / "build").symlink_to("/nowhere")
    if depmod:
        (folder / "modules.dep").touch()
    return folder


def build_tree(tree: Path, order: str = "fs/xfs/xfs.o\n") -> Path:
    """As ``make`` leaves it."""
    for folder in ("arch/x86/boot", "include/config", "fs/xfs"):
        (tree / folder).mkdir(parents=True)
    (tree / "arch/x86/boot/bzImage").write_bytes(bzimage(RELEASE))
    (tree / "include/config/kernel.release").write_text(f"{RELEASE}\n")
    (tree / ".config").write_text("CONFIG_XFS_FS=m\n")
    (tree / "fs/xfs/xfs.ko").write_bytes(module("xfs"))
    (tree / "modules.order").write_text(order)
    (tree / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return tree


def test_an_image_alone_is_enough(make_resolver: MakeResolver, image: Path, mirror: Mirror) -> None:
    kernel = fetch(make_resolver, str(image))
    assert kernel.version == KernelVersion(6, 11, 3)
    assert (kernel.release, kernel.source) == (RELEASE, f"file {image}")
    assert kernel.boot_image.read_bytes() == image.read_bytes()
    assert (kernel.modules, kernel.config) == (None, None)
    assert mirror.requests == []


def test_debians_image_tells_its_full_version(make_resolver: MakeResolver, image: Path) -> None:
    tail = "(debian-kernel@example) #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-01)"
    image.write_bytes(bzimage("6.1.0-50-amd64", tail))
    (candidate,) = make_resolver().resolve([str(image)])
    assert (candidate.id, candidate.release) == ("6.1.176", "6.1.0-50-amd64")


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "lacks the x86 boot header"),
        (b"hello" * 1000, "lacks the x86 boot header"),
        (b"\x7fELF" + b"\0" * 4000, "give the bzImage, not vmlinux"),
        (bzimage("hello"), "its version string is 'hello"),
        (bzimage("")[:0x301], "its version string is"),
        (bzimage(RELEASE)[:0x280], "its header names no version"),
    ],
    ids=["empty", "text", "elf", "no-version", "blank", "cut"],
)
def test_another_file_is_no_kernel_image(
    make_resolver: MakeResolver, image: Path, content: bytes, seen: str
) -> None:
    image.write_bytes(content)
    with pytest.raises(UsageError, match=r"is no Linux kernel image that can be booted here: ") as caught:
        make_resolver().resolve([str(image)])
    assert seen in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["/nowhere/bzImage", "./nowhere.deb", "{}:modules=/nowhere", "{}:config=/nowhere"]
)
def test_a_path_that_is_not_there_is_named(make_resolver: MakeResolver, image: Path, spec: str) -> None:
    with pytest.raises(UsageError, match=r"there is no .*nowhere.* check the path"):
        make_resolver().resolve([spec.format(image)])


def test_a_file_that_may_not_be_read_is_explained(
    make_resolver: MakeResolver, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        InfrastructureError, match=r"cannot read the kernel image .*bzImage: permission is denied"
    ):
        make_resolver().resolve([str(image)])


@pytest.mark.parametrize("given", ["lib/modules/" + RELEASE, "lib/modules", "."])
def test_modules_may_be_given_at_any_level(
    make_resolver: MakeResolver, image: Path, tmp_path: Path, given: str
) -> None:
    install_modules(tmp_path / "staged")
    kernel = fetch(make_resolver, f"{image}:modules={tmp_path}/staged/{given}")
    assert kernel.modules is not None
    assert kernel.modules.parts[-3:] == ("lib", "modules", RELEASE)
    assert (kernel.modules / "modules.dep").is_file()
    assert (kernel.modules / "kernel" / "fs" / "xfs.ko").is_file()
    assert not (kernel.modules / "build").is_symlink()


def test_installed_modules_are_used_where_they_are(
    make_resolver: MakeResolver, image: Path, tmp_path: Path
) -> None:
    folder = install_modules(tmp_path / "staged", depmod=True)
    assert fetch(make_resolver, f"{image}:modules={folder}").modules == folder


def test_a_folder_without_modules_of_that_release_is_refused(
    make_resolver: MakeResolver, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"has no modules of the release {RELEASE} .*INSTALL_MOD_PATH"):
        make_resolver().resolve([f"{image}:modules={image.parent}"])


def test_modules_and_config_beside_the_image_are_found(make_resolver: MakeResolver, tmp_path: Path) -> None:
    boot = tmp_path / "root" / "boot"
    boot.mkdir(parents=True)
    (boot / f"vmlinuz-{RELEASE}").write_bytes(bzimage(RELEASE))
    (boot / f"config-{RELEASE}").write_text("CONFIG_XFS_FS=m\n")
    folder = install_modules(tmp_path / "root", depmod=True)
    kernel = fetch(make_resolver, str(boot / f"vmlinuz-{RELEASE}"))
    assert kernel.modules == folder
    assert kernel.config_option("XFS_FS") == "m"


@pytest.mark.parametrize("order", ["fs/xfs/xfs.o\n", "kernel/fs/xfs/xfs.ko\n"], ids=["new", "old"])
def test_a_built_tree_brings_its_modules(make_resolver: MakeResolver, tmp_path: Path, order: str) -> None:
    tree = build_tree(tmp_path / "linux", order)
    kernel = fetch(make_resolver, str(tree))
    assert (kernel.release, kernel.source) == (RELEASE, f"tree {tree}")
    assert kernel.modules is not None
    assert (kernel.modules / "kernel/fs/xfs/xfs.ko").is_file()
    assert (kernel.modules / "modules.order").read_text() == "kernel/fs/xfs/xfs.ko\n"
    assert (kernel.modules / "modules.dep").is_file()
    assert kernel.config_option("XFS_FS") == "m"


def test_a_tree_without_modules_is_fine(make_resolver: MakeResolver, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "linux")
    (tree / "modules.order").unlink()
    assert fetch(make_resolver, str(tree)).modules is None


def test_a_trees_modules_may_be_given(make_resolver: MakeResolver, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "linux", "fs/unbuilt.o\n")
    install_modules(tmp_path / "staged")
    kernel = fetch(make_resolver, f"{tree}:modules={tmp_path / 'staged'}")
    assert kernel.modules is not None
    assert (kernel.modules / "kernel/fs/xfs.ko").is_file()


def test_a_folder_that_is_no_built_tree_is_refused(make_resolver: MakeResolver, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no built kernel tree .* run 'make' there"):
        make_resolver().resolve([str(tmp_path)])


def test_a_half_built_tree_is_refused(make_resolver: MakeResolver, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "linux", "fs/xfs/xfs.o\nfs/nfs/nfs.o\n")
    with pytest.raises(UsageError, match=r"not built to the end: fs/nfs/nfs\.ko is missing"):
        make_resolver().resolve([str(tree)])


def test_a_rebuilt_tree_is_another_kernel(make_resolver: MakeResolver, tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "linux")
    first = fetch(make_resolver, str(tree))
    assert fetch(make_resolver, str(tree)) == first
    (tree / "fs/xfs/xfs.ko").write_bytes(b"")
    (tree / "arch/x86/boot/bzImage").write_bytes(bzimage(RELEASE, "#2 SMP"))
    second = fetch(make_resolver, str(tree))
    assert second.checksum != first.checksum
    assert first.boot_image.read_bytes() != second.boot_image.read_bytes()


def test_an_image_that_goes_away_is_explained(make_resolver: MakeResolver, image: Path) -> None:
    resolver = make_resolver()
    (candidate,) = resolver.resolve([str(image)])
    assert type(candidate).from_dict(candidate.to_dict()) == candidate
    image.unlink()
    with pytest.raises(InfrastructureError, match="bzImage has gone since it was looked at; run again"):
        resolver.fetch(candidate)
