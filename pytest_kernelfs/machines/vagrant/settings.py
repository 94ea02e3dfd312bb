"""What the vagrant provider is told besides the settings that all providers have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VagrantSettings:
    """``box`` is the name of a box, none for a small one that is built from packages.

    ``folder`` holds a Vagrantfile of the user's own; ``hypervisor`` is "libvirt" or "virtualbox".
    """

    box: str = ""
    folder: Path | None = None
    hypervisor: str = "libvirt"
