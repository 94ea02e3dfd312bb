"""A kernel tree that was built in place: its image, its release, its modules."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_kernelfs.errors import UsageError

_IMAGES = ("arch/x86/boot/bzImage", "arch/x86_64/boot/bzImage")
_TABLES = ("modules.builtin", "modules.builtin.modinfo")


def tree_image(tree: Path, text: str) -> Path:
    """The bzImage of the tree.

    Raises: UsageError if the folder is no built tree.
    """
    for name in _IMAGES:
        if (tree / name).is_file():
            return tree / name
    raise UsageError(
        f"{tree} is no built kernel tree (kernel spec {text!r}): it has no {_IMAGES[0]}; run 'make' there, "
        "or give the image itself"
    )


def tree_release(tree: Path) -> str | None:
    """What ``make kernelrelease`` says, or None if the build left no note of it."""
    try:
        return (tree / "include" / "config" / "kernel.release").read_text().strip() or None
    except OSError:
        return None


def module_files(tree: Path) -> Iterator[tuple[str, Path]]:
    """The tree's modules: where each belongs below ``lib/modules/<release>``, and its file.

    Raises: UsageError if one that modules.order names was not built.
    """
    try:
        lines = (tree / "modules.order").read_text().split()
    except OSError:
        return  # built without modules
    for line in lines:
        # Older builds write kernel/fs/xfs/xfs.ko, newer ones fs/xfs/xfs.o.
        name = line.removeprefix("kernel/").removesuffix(".o").removesuffix(".ko") + ".ko"
        file = tree / name
        if not file.is_file():
            raise UsageError(
                f"the kernel tree {tree} is not built to the end: {name} is missing; run 'make' there"
            )
        yield f"kernel/{name}", file


def collect_modules(tree: Path, target: Path) -> None:
    """Copy the tree's modules and their tables to ``target``; nothing is made if there are none."""
    order = []
    for place, file in module_files(tree):
        copy = target / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        order.append(place)
    if order:
        (target / "modules.order").write_text("".join(f"{place}\n" for place in order))
        for name in _TABLES:
            if (tree / name).is_file():
                shutil.copyfile(tree / name, target / name)
