"""The disk with the system that a machine boots: layers of what was written to it, on top of an image.

Nothing is ever written to the image. Each machine has a layer of its own; that of a machine which was saved
lies between those of its forks and the image.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.machines import qcow2
from pytest_kernelfs.machines.disk_image import SERIAL, DiskImage
from pytest_kernelfs.machines.qemu.disks import CACHE_MODE

LAYER = "root.qcow2"
_NODE = "root"
# Far from the slots that QEMU fills itself, and from those of the ports for disks.
_SLOT = 0xE


def make_layer(image: DiskImage, folder: Path) -> Path:
    """Make a layer with nothing in it. Raises: InfrastructureError."""
    qcow2.make_empty(folder / LAYER, image.size)
    return folder / LAYER


def options(image: DiskImage, layers: Sequence[Path]) -> list[str]:
    """QEMU's options for the disk; ``layers`` are the layers, the lowest first and the machine's own last."""
    node = _node(image.format, image.path, True, None)
    for layer in layers:
        node = _node("qcow2", layer, layer != layers[-1], node)
    node["node-name"] = _NODE
    device = {
        "driver": "virtio-blk-pci",
        "id": _NODE,
        "drive": _NODE,
        "serial": SERIAL,
        "bus": "pcie.0",
        "addr": hex(_SLOT),
    }
    return ["-blockdev", json.dumps(node), "-device", json.dumps(device)]


def _node(driver: str, path: Path, read_only: bool, backing: dict[str, Any] | None) -> dict[str, Any]:
    common = {"cache": CACHE_MODE, "read-only": read_only}
    file = {"driver": "file", "filename": str(path), **common}
    below = {} if backing is None else {"backing": backing}
    return {"driver": driver, "file": file, "discard": "unmap", **common, **below}


def share_layer(layer: Path, folder: Path) -> Path:
    """Have a finished layer in ``folder``, too, for as long as that is there. Raises: InfrastructureError."""
    target = folder / f"template-{LAYER}"
    with explain_os_errors("copy a disk", folder):
        try:
            os.link(layer, target)
        except OSError:
            shutil.copyfile(layer, target)
    return target
