"""What we tell the systemd of a disk image: a place for our cgroups, and what tests do without.

All lies in /run, so that nothing is written to the image; another init never looks there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

HOLDER = "kernelfs.service"
"""Its cgroup is ours: systemd gives it all controllers, and keeps away from what is below."""
CGROUP = f"/system.slice/{HOLDER}"
_FOLDER = "/run/systemd/system"
_CONFIGURATION = "/run/systemd/system.conf.d"

# What waits for a network that is not there, asks questions on the console, or would start all at once when a
# machine that was saved hours ago is told what time it is.
_MASKED = (
    "timers.target",
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    "systemd-firstboot.service",
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    *"""
    cloud-init-local.service cloud-init.service cloud-init-main.service cloud-init-network.service
    cloud-config.service cloud-final.service
    """.split(),  # noqa: SIM905  (a list this long reads best as words)
)

# Of its processes none is to be ended with it: one is our agent.
_UNIT = """[Unit]
Description=Cgroup of the agent of pytest-kernelfs
DefaultDependencies=no
IgnoreOnIsolate=yes

[Service]
ExecStart={command}
Delegate=yes
KillMode=process
TasksMax=infinity
"""


# Every line on the console takes an emulated machine its time.
_MANAGER = """[Manager]
ShowStatus=error
LogColor=no
"""


def write(command: Sequence[str]) -> None:
    """Write the units; ``command`` is to run for as long as the machine does. Raises: OSError."""
    os.makedirs(f"{_FOLDER}/sysinit.target.wants")
    with open(f"{_FOLDER}/{HOLDER}", "w") as file:
        file.write(_UNIT.format(command=" ".join(command)))
    os.symlink(f"{_FOLDER}/{HOLDER}", f"{_FOLDER}/sysinit.target.wants/{HOLDER}")
    os.makedirs(_CONFIGURATION)
    with open(f"{_CONFIGURATION}/kernelfs.conf", "w") as file:
        file.write(_MANAGER)
    for name in _MASKED:
        os.symlink("/dev/null", f"{_FOLDER}/{name}")
