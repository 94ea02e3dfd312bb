"""Machines that a test prepared and saved, to be forked like a template; they live as long as the run."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.qemu.command import KERNEL_HEAD, Launch
from pytest_kernelfs.machines.qemu.disks import Plug
from pytest_kernelfs.machines.qemu.template import MEMORY, Unusable


@final
@dataclass(frozen=True)
class QemuSaved:
    """``folder`` holds memory, state and disks; ``plugs`` are the disks for a fork to start with."""

    launch: Launch
    folder: Path
    plugs: tuple[Plug, ...]

    def discard(self) -> None:
        """Remove it; forks that run from it are not harmed."""
        shutil.rmtree(self.folder, ignore_errors=True)


def copy_memory(template: Path, folder: Path) -> Path:
    """Copy a template's memory into ``folder``, holes and all, for a machine that may write to it.

    Gives the copy. Raises: Unusable if the template's cannot be read; InfrastructureError.
    """
    files = [str(template / name) for name in (KERNEL_HEAD, MEMORY)]
    command = ["cp", "--sparse=always", "--reflink=auto", *files, str(folder)]
    with explain_os_errors("copy a machine's memory", folder):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return folder / MEMORY
    complaint = f"cannot copy a machine's memory: {done.stderr.strip()}"
    if template.name in done.stderr and folder.name not in done.stderr:
        raise Unusable(complaint)
    raise InfrastructureError(f"{complaint}; make room in {folder}")
