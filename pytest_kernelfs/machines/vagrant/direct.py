"""What a hypervisor boots directly: copies of the kernel and of our initial ramdisk, and their parameters."""

from __future__ import annotations

import shutil
from pathlib import Path

from pytest_kernelfs.cache import Cache, explain_os_errors
from pytest_kernelfs.guest import image_boot
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.boot import KERNEL_ARGUMENTS
from pytest_kernelfs.machines.initramfs.image import build_initramfs

FAILED = image_boot.FAILED
"""What the console says if our initial ramdisk cannot start the box's system."""
# The first disk of libvirt's machines; the ramdisk finds the partition with the root.
_ROOT = "kernelfs.root=/dev/vda kernelfs.agent=off"


def boot_files(cache: Cache, kernel: Kernel, folder: Path, parameters: str) -> dict[str, str]:
    """The values of KERNEL, INITRD and CMDLINE for the Vagrantfile; the files are put into ``folder``.

    Raises: ProviderUnavailable, InfrastructureError.
    """
    assert kernel.image is not None
    files = {"KERNEL": kernel.image, "INITRD": build_initramfs(cache, kernel)}
    with explain_os_errors("copy a kernel", folder, "TMPDIR"):
        # Copies, not links: libvirt makes the user that its machines run as the owner of both.
        copies = {name: str(shutil.copyfile(path, folder / name.lower())) for name, path in files.items()}
    return {**copies, "CMDLINE": f"{KERNEL_ARGUMENTS} {_ROOT} {parameters}".rstrip()}
