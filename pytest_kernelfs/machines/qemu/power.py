"""What the disks of a machine keep when its power is cut."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.machines.qemu import write_log
from pytest_kernelfs.machines.qemu.disks import Plug


def check(plugs: Sequence[Plug], keep: str) -> None:
    """Raises: UsageError if what the disks would keep cannot be told."""
    for plug in plugs:
        if plug.spec.power_cut:
            continue
        if plug.below is not None:
            why = "it comes from a checkpoint"
        elif keep == "flushed" and plug.spec.cache == "writeback":
            why = 'it has a write cache: keep="written" would work, and so would cache="writethrough"'
        else:
            continue
        raise UsageError(
            f"vm.power_cut: nobody recorded what the disk {plug.serial} would keep ({why}); "
            "make it with disk_factory(power_cut=True)"
        )


def content(plug: Plug, folder: Path, keep: str) -> Path:
    """What a disk keeps, as a raw file; ``folder`` holds the files of its machine, which has ended.

    Raises: InfrastructureError.
    """
    image = plug.image(folder)
    if plug.below is None and (keep == "written" or not plug.spec.power_cut):
        return image
    kept = folder / f"{plug.serial}.kept"
    with explain_os_errors("make what a disk kept", folder):
        if plug.below is None:
            with kept.open("wb") as file:
                file.truncate(plug.spec.size)
        elif plug.base is None:
            plug.below.rename(kept)
        else:
            _copy(plug.below, kept)
        # What is replaced makes room before the rest is written.
        image.unlink()
        write_log.replay(plug.log(folder), kept, only_flushed=keep == "flushed")
    return kept


def _copy(source: Path, target: Path) -> None:
    command = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfrastructureError(f"cannot copy a disk: {done.stderr.strip()}; make room in {target.parent}")
